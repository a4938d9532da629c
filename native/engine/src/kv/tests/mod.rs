//! Stories of the whole machine, against a model in a `BTreeMap`.

mod behind;
mod corruption;
mod model;
mod seal;
mod snapshots;
mod support;
mod watches;
