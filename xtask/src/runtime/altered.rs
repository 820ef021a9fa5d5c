//! Modules that are for another kernel, made of ones that are not.

use crate::error::{Error, Result};

/// A module with other digits after each place of a text.
pub(super) fn altered(module: &[u8], before: &str) -> Result<Vec<u8>> {
    let mut out = module.to_vec();
    let places: Vec<usize> = module
        .windows(before.len())
        .enumerate()
        .filter(|(_, window)| *window == before.as_bytes())
        .map(|(at, _)| at)
        .collect();
    let [at] = places[..] else {
        return Err(Error::Failed(format!("`{before}` is in a module {} times", places.len())));
    };
    // The release ends within the text, a build-id begins after it: the nearest digit is part of it.
    let digit = |byte: &u8| byte.is_ascii_hexdigit();
    let after = at + before.len();
    let place = if before.ends_with(['=', '"']) {
        Some(after)
    } else {
        out[at..after].iter().rposition(u8::is_ascii_digit).map(|p| at + p)
    };
    let Some(place) = place.filter(|place| out.get(*place).is_some_and(digit)) else {
        return Err(Error::Failed(format!("no digit after `{before}`")));
    };
    let new = if out[place] == b'9' { b'8' } else { b'9' };
    out[place] = new;
    // The note says the build-id as well.
    if before.ends_with('=') {
        let id: Vec<u8> = module[after..].iter().copied().take_while(u8::is_ascii_hexdigit).collect();
        for (at, window) in module.windows(id.len().max(1)).enumerate() {
            if window == id {
                out[at] = new;
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_altered_in_one_place() {
        let module = b"x\"build_id\":\"a1b2\" vermagic=6.1.0-5-amd64 SMP\0kpatch_target_build_id=a1b2\0";
        let foreign = altered(module, "vermagic=6.1.0-5-amd64").unwrap();
        assert!(String::from_utf8_lossy(&foreign).contains("vermagic=6.1.0-5-amd69 SMP"));
        let build = String::from_utf8(altered(module, "kpatch_target_build_id=").unwrap()).unwrap();
        assert!(build.contains("\"build_id\":\"91b2\"") && build.contains("build_id=91b2\0"), "{build}");
        assert!(altered(module, "absent=").is_err());
    }
}
