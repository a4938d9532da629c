//! Looking at the files for as long as somebody listens.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use crate::config::TlsFiles;
use crate::error::Failure;

use super::Tls;
use super::material::{Material, Texts};

/// What the last looks found.
#[derive(Default)]
struct Seen {
    /// What could not be used at the last look: the texts, when they could be read, and why.
    unusable: Option<(Option<Texts>, Failure)>,
    /// That it was reported.
    told: bool,
    /// That some report stands, of this or of something before it.
    standing: bool,
}

/// Runs until dropped.
pub(super) async fn keep_looking(tls: Tls) {
    let mut look = interval(tls.0.look_every);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    loop {
        look.tick().await;
        let (files, current) = (tls.0.files.clone(), tls.material());
        match tokio::task::spawn_blocking(move || find(&files, &current)).await {
            Ok(found) => seen.digest(&tls, found),
            // Only a panic, or the end of the runtime.
            Err(error) => tracing::error!("Looking at the certificates failed: {error}."),
        }
    }
}

/// The texts that were found, `None` when they cannot be read, with the material made of them; `Ok(None)` when nothing changed.
type Found = Result<Option<Material>, (Option<Texts>, Failure)>;

fn find(files: &TlsFiles, current: &Material) -> Found {
    let texts = Texts::read(files).map_err(|failure| (None, failure))?;
    if texts == current.texts {
        return Ok(None);
    }
    Material::build(texts.clone(), files).map(Some).map_err(|failure| (Some(texts), failure))
}

impl Seen {
    fn digest(&mut self, tls: &Tls, found: Found) {
        match found {
            Ok(changed) => {
                if let Some(material) = changed {
                    *tls.0.current.write() = Arc::new(material);
                    tracing::info!("The certificates of :tls were read anew; new connections use them.");
                }
                if std::mem::take(self).standing {
                    (tls.0.report)(None);
                }
            }
            Err(unusable) if self.unusable.as_ref() == Some(&unusable) => {
                if !self.told {
                    (self.told, self.standing) = (true, true);
                    let message = format!("{} The former certificates stay in use.", unusable.1.message);
                    tracing::warn!("{message}");
                    (tls.0.report)(Some(Failure::new(unusable.1.code, message)));
                }
            }
            // Perhaps the next file is being written; the next look will tell. A report of something else stands.
            Err(unusable) => {
                self.unusable = Some(unusable);
                self.told = false;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::transport::tests::tls::World;

    /// Files are replaced one by one, so there may be a look at a half-way state between what was reported and what is right.
    /// A report that was not withdrawn then stayed for ever.
    #[test]
    fn a_report_is_withdrawn_whatever_was_seen_in_between() {
        let world = World::new();
        let reports = Arc::new(Mutex::new(Vec::new()));
        let told = reports.clone();
        let tls = Tls::new(world.member("a"), Box::new(move |report| told.lock().push(report.is_some()))).unwrap();
        let unusable = |why: &str| Err((None, Failure::invalid(why)));
        let mut seen = Seen::default();
        for found in [unusable("one"), unusable("one"), unusable("one"), unusable("two"), Ok(None), Ok(None)] {
            seen.digest(&tls, found);
        }
        assert_eq!(*reports.lock(), [true, false]);
        for found in [unusable("half-way"), Ok(None), unusable("half-way"), unusable("other"), Ok(None)] {
            seen.digest(&tls, found);
        }
        assert_eq!(reports.lock().len(), 2, "what passes is not reported");
    }
}
