//! The rpm format, version 4, which every rpm since RHEL 6 reads.

use rpm::{BuildConfig, CompressionType, Dependency, FileOptions, PackageBuilder};

use crate::{Package, PackageError};

/// The name that the package's file should have.
pub fn file_name(package: &Package) -> String {
    let machine = package.machine.as_deref().unwrap_or("noarch");
    format!("{}-{}-{}.{machine}.rpm", package.name, package.version, package.release)
}

/// The bytes of the package's file.
pub fn write(package: &Package) -> Result<Vec<u8>, PackageError> {
    package.check()?;
    let failed = |error: rpm::Error| PackageError::Rpm(error.to_string());
    let machine = package.machine.as_deref().unwrap_or("noarch");
    let mut builder =
        PackageBuilder::new(&package.name, &package.version, "GPL-2.0-or-later", machine, &package.summary);
    builder
        .using_config(BuildConfig::v4().compression(CompressionType::Gzip).source_date(package.time))
        .release(package.release.as_str())
        .description(package.description.as_str())
        .build_host("localhost");
    for needs in package.needs.iter().filter_map(|needs| needs.rpm.as_ref()) {
        builder.requires(dependency(needs));
    }
    for needs in package.recommends.iter().filter_map(|needs| needs.rpm.as_ref()) {
        builder.recommends(dependency(needs));
    }
    for (path, file) in &package.files {
        // The format keeps the kind of file in the mode; 16 bits hold both.
        let options = FileOptions::new(path).permissions(file.mode as u16);
        builder.with_file_contents(file.content.as_slice(), options).map_err(failed)?;
    }
    // $1 counts the versions of the package that will be there: 0 where it is removed.
    if let Some(script) = &package.scripts.installed {
        builder.post_install_script(script.as_str());
    }
    if let Some(script) = &package.scripts.removing {
        builder.pre_uninstall_script(format!("[ \"$1\" = 0 ] || exit 0\n{script}"));
    }
    if let Some(script) = &package.scripts.removed {
        builder.post_uninstall_script(format!("[ \"$1\" = 0 ] || exit 0\n{script}"));
    }
    let mut out = Vec::new();
    builder.build().map_err(failed)?.write(&mut out).map_err(failed)?;
    Ok(out)
}

fn dependency((name, version): &(String, Option<String>)) -> Dependency {
    match version {
        Some(version) => Dependency::eq(name.as_str(), version.as_str()),
        None => Dependency::any(name.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::example;

    #[test]
    fn the_library_reads_what_is_written() {
        let bytes = write(&example()).unwrap();
        let read = rpm::Package::parse(&mut bytes.as_slice()).unwrap();
        let data = &read.metadata;
        assert_eq!(data.get_name().unwrap(), "kpatch-patch-x");
        assert_eq!((data.get_version().unwrap(), data.get_release().unwrap()), ("1.0", "1"));
        let files: Vec<_> =
            data.get_file_entries().unwrap().iter().map(|f| (f.path(), f.permissions())).collect();
        assert_eq!(files.len(), 2);
        assert_eq!(files[0], ("/usr/sbin/kpatch".into(), 0o755));
        let needs: Vec<_> = data.get_requires().unwrap().into_iter().map(|d| d.name.clone()).collect();
        assert!(needs.iter().any(|name| name == "kernel-uname-r"), "{needs:?}");
        assert_eq!(bytes, write(&example()).unwrap(), "the same again");
        assert_eq!(file_name(&example()), "kpatch-patch-x-1.0-1.x86_64.rpm");
    }
}
