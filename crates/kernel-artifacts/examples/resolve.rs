//! Resolves a release and shows where its parts are: `resolve CACHE RELEASE|SERIES:FLAVOUR [SUITE...]`;
//! with `list` in place of a release shows which ones are offered, with `own` takes SOURCE CONFIG VMLINUX.

use std::time::Instant;

use kernel_artifacts::{Settings, newest, offered, open, resolve};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(cache), Some(release)) = (args.next(), args.next()) else {
        return Err("usage: resolve CACHE RELEASE|SERIES:FLAVOUR [SUITE...]".into());
    };
    let mut settings = Settings::new(cache);
    let rest: Vec<String> = args.collect();
    let start = Instant::now();
    let show = |event| println!("{:8.2} {event:?}", start.elapsed().as_secs_f64());
    let found = |part: &str, path: &dyn std::fmt::Debug| {
        println!("{:8.2} {part}: {path:?}", start.elapsed().as_secs_f64());
    };
    if let ("own", [source, config, vmlinux]) = (release.as_str(), rest.as_slice()) {
        let kernel = open(source.as_ref(), config.as_ref(), vmlinux.as_ref(), &settings, &show)?;
        found("kernel", &kernel);
        found("modules", &kernel.modules(&show)?.len());
        return Ok(());
    }
    settings.suites = rest;
    if release == "list" {
        for release in offered(&settings, &show)? {
            println!("{release}");
        }
        return Ok(());
    }
    let release = match release.split_once(':') {
        Some((series, flavour)) => newest(series, flavour, &settings, &show)?.release,
        None => release,
    };
    let kernel = match resolve(&release, &settings, &show) {
        Ok(kernel) => kernel,
        Err(error) => {
            eprintln!("{error}");
            if let Some(remedy) = error.remedy() {
                eprintln!("{remedy}");
            }
            std::process::exit(1);
        }
    };
    found("compiler", &kernel.compiler);
    found("build root", &kernel.build_root);
    found("config", &kernel.config);
    found("headers", &kernel.headers(&show)?);
    found("source", &kernel.source(&show)?);
    found("vmlinux", &kernel.vmlinux(&show)?);
    found("image", &kernel.image(&show)?);
    found("modules", &kernel.modules(&show)?.len());
    found("module", &kernel.module("virtio-net", &show)?);
    found("debug", &kernel.module_debug(&["virtio_net", "dummy"], &show)?);
    Ok(())
}
