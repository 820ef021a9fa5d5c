//! `kpatch diff`.

use std::fmt::Write as _;
use std::path::Path;

use kpatch_elf::note::NotedFunction;

use super::Context;
use super::info::function;
use crate::edge::read;
use crate::error::Result;
use crate::model::delta::{Delta, delta};

/// Compares two modules.
pub fn run(cx: &mut Context<'_>, old: &Path, new: &Path) -> Result<()> {
    let (old, new) = (cx.file(old)?, cx.file(new)?);
    let delta = delta(&read::module(&old)?, &read::module(&new)?);
    let text = text(&delta);
    cx.print(&delta, &text)
}

fn text(delta: &Delta) -> String {
    let mut out = String::new();
    for patch in &delta.patches_dropped {
        let _ = writeln!(out, "- patch     {}", patch.subject);
    }
    for patch in &delta.patches_added {
        let _ = writeln!(out, "+ patch     {}", patch.subject);
    }
    let mut list = |sign: &str, functions: &[NotedFunction]| {
        for one in functions {
            let _ = writeln!(out, "{sign} function  {}", function(one));
        }
    };
    list("-", &delta.dropped);
    list("+", &delta.added);
    list("~", &delta.repatched);
    list("?", &delta.unknown);
    list("=", &delta.same);
    out
}
