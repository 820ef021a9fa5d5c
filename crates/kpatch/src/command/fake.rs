//! A kernel for tests: a sysfs in a directory, with the rules of the livepatch core, and a clock that runs
//! while one waits.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;

use super::Context;
use crate::edge::read;
use crate::edge::root::Root;
use crate::edge::system::System;
use crate::error::Result;
use crate::model::module::PatchModule;

pub(super) const RELEASE: &str = "6.1.0-test";

/// The kernel.
pub(super) struct Fake {
    pub(super) root: Root,
    directory: tempfile::TempDir,
    clock: Duration,
    /// How long transitions take from now on.
    pub(super) transition: Duration,
    /// When the one under way ends.
    end: Option<Duration>,
    /// What `insert` answers, first to last, before it does its work.
    pub(super) refusals: Vec<Errno>,
    /// How long a module keeps its references.
    pub(super) references: Duration,
    held_until: Duration,
    log: Vec<String>,
    /// A file that somebody writes to before it is loaded.
    pub(super) written: Option<PathBuf>,
    /// Everything that was asked of it.
    pub(super) calls: Vec<String>,
}

/// What a command printed.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) out: String,
    pub(super) err: String,
}

impl Fake {
    pub(super) fn new() -> Fake {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let fake = Fake {
            root,
            directory,
            clock: Duration::ZERO,
            transition: Duration::ZERO,
            end: None,
            refusals: Vec::new(),
            references: Duration::ZERO,
            held_until: Duration::ZERO,
            log: Vec::new(),
            written: None,
            calls: Vec::new(),
        };
        fake.write("/proc/sys/kernel/osrelease", RELEASE);
        fake.write("/proc/modules", "");
        fs_err::create_dir_all(fake.root.path(read::LIVEPATCH)).unwrap();
        fake
    }

    pub(super) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.root.path(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    /// A task that has not switched.
    pub(super) fn sleeper(&self, state: char, patch_state: &str, frame: &str) {
        self.write("/proc/7/task/7/stat", format!("7 (sleeper) {state} 1 7 7 0 -1 4194304 0"));
        self.write("/proc/7/task/7/patch_state", patch_state);
        self.write("/proc/7/task/7/stack", format!("[<0>] {frame}+0x1/0x2\n"));
    }

    /// Runs a command on this kernel.
    pub(super) fn run(
        &mut self,
        json: bool,
        command: impl FnOnce(&mut Context<'_>) -> Result<()>,
    ) -> (Result<()>, Said) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let root = self.root.clone();
        let result = command(&mut Context { root, system: self, json, out: &mut out, err: &mut err });
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (result, Said { out: text(out), err: text(err) })
    }

    /// Compiles a patch module of these functions of vmlinux, with a note of these patches.
    pub(super) fn module(&self, name: &str, patches: &[&str], functions: &[&str], replace: bool) -> PathBuf {
        self.module_for(RELEASE, name, patches, functions, replace)
    }

    pub(super) fn module_for(
        &self,
        release: &str,
        name: &str,
        patches: &[&str],
        functions: &[&str],
        replace: bool,
    ) -> PathBuf {
        let list = |items: &[&str], make: &dyn Fn(&str) -> String| {
            items.iter().map(|item| make(item)).collect::<Vec<_>>().join(",")
        };
        let patches = list(patches, &|p| format!(r#"{{"subject":"fix {p}","blake3":"{p}"}}"#));
        let noted = list(functions, &|f| format!(r#"{{"object":"vmlinux","name":"{f}","sympos":0}}"#));
        let note = format!(
            r#"{{"note":1,"release":"{release}","build_id":null,"patches":[{patches}],"version":"1","replace":{replace},"functions":[{noted}]}}"#
        );
        let mut source = String::new();
        for (tag, value) in [("name", name), ("vermagic", &format!("{release} SMP ")), ("livepatch", "Y")] {
            let _ = writeln!(
                source,
                "static const char {tag}[] __attribute__((used, section(\".modinfo\"), aligned(1))) = \"{tag}={value}\";"
            );
        }
        let _ = writeln!(
            source,
            "static const struct {{ unsigned a, b, c; char owner[8]; char text[{}]; }} note \
             __attribute__((used, aligned(4), section(\".note.kpatch\"))) = {{ 7, {}, 1, \"kpatch\", {note:?} }};",
            note.len() + 1,
            note.len()
        );
        for function in functions {
            // As a linked module has it: a section of strings without the flag.
            let _ = writeln!(
                source,
                "static const char {function}_text[] __attribute__((used, section(\".rodata.{function}.str1.1\"))) = \
                 \"{name}\";\nconst char *{function}(void) {{ return {function}_text; }}"
            );
        }
        self.compile(name, &source)
    }

    /// Compiles a text to `NAME.ko`.
    pub(super) fn compile(&self, name: &str, source: &str) -> PathBuf {
        let directory = self.directory.path().join("modules");
        fs_err::create_dir_all(&directory).unwrap();
        let (text, object) = (directory.join(format!("{name}.c")), directory.join(format!("{name}.ko")));
        fs_err::write(&text, source).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-c", "-O1", "-ffunction-sections", "-fno-asynchronous-unwind-tables", "-o"]);
        assert!(gcc.args([&object, &text]).status().unwrap().success());
        object
    }

    fn directory_of(&self, name: &str) -> PathBuf {
        self.root.path(read::LIVEPATCH).join(name)
    }

    fn attribute(&self, name: &str, attribute: &str) -> Option<String> {
        std::fs::read_to_string(self.directory_of(name).join(attribute)).ok()
    }

    fn put(&self, name: &str, attribute: &str, value: &str) {
        fs_err::write(self.directory_of(name).join(attribute), value).unwrap();
    }

    fn moving(&self) -> Option<String> {
        let names = self.root.names(read::LIVEPATCH).unwrap();
        names.into_iter().find(|name| self.attribute(name, "transition").as_deref() == Some("1"))
    }

    fn begin(&mut self, name: &str) {
        self.put(name, "transition", "1");
        self.end = Some(self.clock + self.transition);
        self.settle();
    }

    /// Ends the transition if its time has come.
    fn settle(&mut self) {
        if self.end.is_none_or(|end| end > self.clock) {
            return;
        }
        self.end = None;
        let Some(name) = self.moving() else { return };
        self.put(&name, "transition", "0");
        self.held_until = self.clock + self.references;
        if self.attribute(&name, "enabled").as_deref() == Some("0") {
            fs_err::remove_dir_all(self.directory_of(&name)).unwrap();
        } else if self.attribute(&name, "replace").as_deref() == Some("1") {
            for other in self.root.names(read::LIVEPATCH).unwrap().iter().filter(|other| **other != name) {
                fs_err::remove_dir_all(self.directory_of(other)).unwrap();
            }
        }
        let _ = std::fs::remove_dir_all(self.root.path("/proc/7"));
    }
}

impl System for Fake {
    fn insert(&mut self, file: &File) -> io::Result<()> {
        self.calls.push("insert".to_owned());
        if !self.refusals.is_empty() {
            self.log.push("livepatch: the reason".to_owned());
            return Err(self.refusals.remove(0).into());
        }
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap()];
        file.read_exact_at(&mut bytes, 0)?;
        let module = PatchModule::read(&bytes).map_err(|_| io::Error::from(Errno::NOEXEC))?;
        if self.moving().is_some() {
            return Err(Errno::BUSY.into());
        }
        let name = &module.name;
        for function in &module.functions {
            let place = format!("{}/{name}/{}/{},1", read::LIVEPATCH, function.object, function.name);
            fs_err::create_dir_all(self.root.path(place)).unwrap();
        }
        self.put(name, "enabled", "1");
        self.put(name, "replace", if module.replace == Some(true) { "1" } else { "0" });
        self.write(&format!("/sys/module/{name}/taint"), "OEK\n");
        let modules = self.root.text("/proc/modules").unwrap();
        self.write("/proc/modules", format!("{name} 16384 1 - Live 0x0\n{modules}\n"));
        // The note as sysfs shows it.
        let note = serde_json::to_vec(&module.note).unwrap();
        let mut bytes = [7, note.len() as u32, 1].map(u32::to_le_bytes).concat();
        bytes.extend(b"kpatch\0\0");
        bytes.extend(note);
        self.write(&format!("/sys/module/{name}/notes/.note.kpatch"), bytes);
        self.begin(name);
        Ok(())
    }

    fn remove(&mut self, module: &str) -> io::Result<()> {
        self.calls.push(format!("remove {module}"));
        if self.directory_of(module).exists() || self.clock < self.held_until {
            return Err(Errno::AGAIN.into());
        }
        fs_err::remove_dir_all(self.root.path(format!("/sys/module/{module}")))?;
        let modules = self.root.text("/proc/modules").unwrap();
        let rest: Vec<&str> = modules.lines().filter(|line| line.split(' ').next() != Some(module)).collect();
        self.write("/proc/modules", rest.join("\n"));
        Ok(())
    }

    fn set(&mut self, patch: &str, attribute: &str, value: &str) -> io::Result<()> {
        self.calls.push(format!("set {patch} {attribute} {value}"));
        let Some(now) = self.attribute(patch, attribute) else { return Err(Errno::NOENT.into()) };
        match attribute {
            "enabled" if now == value => return Err(Errno::INVAL.into()),
            "enabled" => {
                if self.moving().is_some_and(|other| other != patch) {
                    return Err(Errno::BUSY.into());
                }
                // A transition that is turned round goes back at once: those that wait never left.
                if self.moving().is_some() {
                    self.transition = Duration::from_millis(10);
                }
                self.put(patch, "enabled", value);
                self.begin(patch);
            }
            "force" => {
                self.end = Some(self.clock);
                self.settle();
            }
            _ => {}
        }
        Ok(())
    }

    fn wait(&mut self, limit: Duration) {
        self.clock += limit;
        self.settle();
    }

    fn log(&mut self) -> Vec<String> {
        if let Some(path) = self.written.take() {
            // Not in the tick in which it was made.
            std::thread::sleep(Duration::from_millis(20));
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.reverse();
            std::fs::write(&path, bytes).unwrap();
        }
        std::mem::take(&mut self.log)
    }

    fn elapsed(&self) -> Duration {
        self.clock
    }
}
