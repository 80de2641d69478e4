use std::os::fd::AsFd as _;
fn main() {
    let t = std::time::Instant::now();
    let mut k = trace502::kernel::Kernel::load(&trace502::kernel::Options {
        verbose: std::env::var("V").is_ok(),
        ..Default::default()
    })
    .unwrap();
    eprintln!("loaded in {:?}", t.elapsed());
    for r in &k.reports {
        println!("{:22} {:?} {} {:?}", r.name, r.provider, r.attached, r.error);
        if let Some(v) = &r.verifier {
            let n = v.len();
            println!("{}", &v[n.saturating_sub(3000)..]);
        }
    }
    k.set_names(&[("nginx", 1), ("haproxy", 5), ("apache2", 1), ("caddy", 9), ("envoy", 1)]).unwrap();
    for a in std::env::args().skip(1) {
        if let Ok(p) = a.parse() {
            k.track(p, 1).unwrap();
            k.watch_connect(p);
        }
    }
    k.find_existing();
    eprintln!("ready in {:?}", t.elapsed());
    let mut ring = trace502::kernel::Ring::new(k.take_ring().unwrap());
    let (_a, b) = std::os::unix::net::UnixStream::pair().unwrap();
    loop {
        ring.wait(b.as_fd(), std::time::Duration::from_secs(1));
        ring.drain(1000, |r| match trace502::decode::decode(r, &k.names) {
            Ok(o) => println!("{o:?}"),
            Err(e) => println!("{e}"),
        });
    }
}
