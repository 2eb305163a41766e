use crate::world::*;
use custody_core::digest::Sha256;
use custody_core::envelope::Payload;
use custody_core::statement::{Origin, Statement};
use custody_store::*;
use std::time::Instant;
#[test]
fn perf() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let release = Release::new("a");
    let mut all = release.first_phase();
    let mut previous = release.build.id();
    let mut before = release.built.id();
    let mut ends = vec![];
    for i in 0..6000 {
        let t =
            task("build", release.authorization.id(), &[Origin::Task(previous)], &format!("t{i}"));
        let m = manifest(t.id(), "app", &[("app", before)], "1");
        let Statement::Manifest(mut m) = Statement::parse(m.unverified_payload()).unwrap() else {
            panic!()
        };
        m.artifacts = (0..8).map(|n| artifact(&format!("dist/a-{i}-{n}"))).collect();
        let m = signed(22, m);
        if i % 50 == 0 {
            ends.push((t.id(), m.id()));
        }
        previous = t.id();
        before = m.id();
        all.push(t);
        all.push(m);
    }
    let bytes: usize = all.iter().map(|e| e.to_json().len()).sum();
    let t = Instant::now();
    store.add(&all).unwrap();
    eprintln!("add {} envelopes {} bytes {:?}", all.len(), bytes, t.elapsed());
    let t = Instant::now();
    store.add(&all[5000..5001]).unwrap();
    eprintln!("add known 1 {:?}", t.elapsed());
    let one = foreign("z");
    let t = Instant::now();
    store.add(&[one]).unwrap();
    eprintln!("add new 1 {:?}", t.elapsed());
    drop(store);
    let t = Instant::now();
    let store = Store::open(dir.path()).unwrap();
    eprintln!("open {:?}", t.elapsed());
    let t = Instant::now();
    let c = store.closure(&[before]).unwrap();
    eprintln!("closure {} {:?}", c.len(), t.elapsed());
    let t = Instant::now();
    let c = store.closure(&[release.signed.id()]).unwrap();
    eprintln!("closure small {} {:?}", c.len(), t.elapsed());
    let t = Instant::now();
    let c = store.manifests_of(&Sha256::of(b"dist/a-77-3")).unwrap();
    eprintln!("manifests_of {} {:?}", c.len(), t.elapsed());
    let t = Instant::now();
    let ids: Vec<_> = all.iter().map(|e| e.id()).collect();
    store.get_many(&ids).unwrap();
    eprintln!("get_many {} {:?}", ids.len(), t.elapsed());
    let t = Instant::now();
    let text = bundle::write(&all);
    eprintln!("bundle write {} {:?}", text.len(), t.elapsed());
    let t = Instant::now();
    bundle::read(text.as_bytes()).unwrap();
    eprintln!("bundle read {:?}", t.elapsed());
    let t = Instant::now();
    let h: usize =
        all.iter().map(|e| usize::from(Sha256::of(e.unverified_payload()).as_bytes()[0])).sum();
    eprintln!("hash floor {h} {:?}", t.elapsed());
    let t = Instant::now();
    let staged: Vec<_> = (0..10000u32)
        .map(|i| store.stage(&i.to_le_bytes().repeat(2048)[..], false, None).unwrap())
        .collect();
    eprintln!("stage 10000x8K {:?}", t.elapsed());
    let t = Instant::now();
    store.keep(staged).unwrap();
    eprintln!("keep {:?}", t.elapsed());
    eprintln!("db {}", std::fs::metadata(dir.path().join("custody.sqlite")).unwrap().len());
}
