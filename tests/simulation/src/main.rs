//! Scratch entry.
fn main() {
    let seed: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    if let Ok(level) = std::env::var("QUORATE_LOG") {
        tracing_subscriber::fmt().with_max_level(level.parse::<tracing::Level>().unwrap_or(tracing::Level::INFO)).init();
    }
    let plan = quorate_simulation::plan::Plan::new(seed);
    print!("{plan}");
    let root = std::path::PathBuf::from(format!("/dev/shm/qsim-{}", seed));
    let _ = std::fs::remove_dir_all(&root);
    let t = std::time::Instant::now();
    let report = quorate_simulation::driver::run(&plan, &root);
    match report {
        Ok(r) => {
            if std::env::args().nth(2).is_some() { print!("{}", r.log); }
            println!("{:?} {:?} {:?} el {} inst {} appl {} panics {} helped {} vms {} hard {}", r.counts, r.faults, r.harm, r.elections, r.installed, r.applied, r.panics, r.helped, r.virtual_ms, r.too_hard);
            println!("{:?} took {:?}", r.violation, t.elapsed());
        }
        Err(e) => println!("io {e}"),
    }
}
