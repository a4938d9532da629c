//! Stories of the whole machine, against a model in a `BTreeMap`.

mod corruption;
mod model;
mod snapshots;
mod support;
mod watches;
