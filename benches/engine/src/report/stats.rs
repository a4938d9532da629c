//! Medians, spreads and ratios of rows.

use crate::row::Row;

/// Several measurements of the same thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The one in the middle, or the mean of the two there.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of `values`; `None` when there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 };
        Some(Spread { median, least, most })
    }
}

/// Rows that measured the same thing, one a round.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// In the order in which they were written; never empty.
    pub rows: Vec<&'a Row>,
}

impl Group<'_> {
    /// The first row, for what all have in common.
    pub fn head(&self) -> &Row {
        self.rows[0]
    }

    /// The spread of a figure; `None` when no row has it.
    pub fn spread(&self, of: impl Fn(&Row) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rows.iter().filter_map(|row| of(row)))
    }
}

/// The rows of one part by what they measured, in the order in which that first comes up.
pub fn groups<'a>(rows: &'a [Row], part: &str) -> Vec<Group<'a>> {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows.iter().filter(|row| row.part == part) {
        let same = |group: &&mut Group| {
            let head = group.head();
            (&head.system, &head.variant, head.bytes, head.n) == (&row.system, &row.variant, row.bytes, row.n)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.rows.push(row),
            None => groups.push(Group { rows: vec![row] }),
        }
    }
    groups
}

/// One thing against another of the same run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The ratio of the medians.
    pub of_medians: f64,
    /// The least and the most of the ratios of rows of the same round; those of the medians when no round has both.
    pub least: f64,
    /// See `least`.
    pub most: f64,
}

/// A figure of `above` by the same of `below`; `None` when either has none.
pub fn ratio(above: &Group, below: &Group, of: impl Fn(&Row) -> Option<f64>) -> Option<Ratio> {
    let of_medians = above.spread(&of)?.median / below.spread(&of)?.median;
    let rounds = above.rows.iter().filter_map(|upper| {
        let lower = below.rows.iter().find(|lower| lower.round == upper.round)?;
        Some(of(upper)? / of(lower)?)
    });
    let spread = Spread::of(rounds).unwrap_or(Spread { median: of_medians, least: of_medians, most: of_medians });
    of_medians.is_finite().then_some(Ratio { of_medians, least: spread.least, most: spread.most })
}
