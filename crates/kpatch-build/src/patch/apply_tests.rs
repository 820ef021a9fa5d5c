use super::super::parse::parse;
use super::*;

fn lines(text: &str) -> Vec<FileLine> {
    text.as_bytes()
        .lines_with_terminator()
        .map(|line| FileLine { text: line.to_owned(), written: false })
        .collect()
}

fn numbered(range: std::ops::RangeInclusive<u32>) -> String {
    range.map(|n| n.to_string() + "\n").collect()
}

/// Applies one change to one text.
fn apply(original: &str, hunks: &str, fuzz: usize) -> (String, Vec<Moved>, Vec<(usize, FailReason)>) {
    let files = parse(format!("--- a/x\n+++ b/x\n{hunks}").as_bytes()).unwrap();
    let outcome = patch_lines(&lines(original), &files[0].hunks, fuzz);
    let text = outcome.lines.iter().flat_map(|line| line.text.clone()).collect();
    let failed = outcome.failed.into_iter().map(|failure| (failure.number, failure.reason)).collect();
    (String::from_utf8(text).unwrap(), outcome.moved, failed)
}

const HUNK: &str = "@@ -10,7 +10,7 @@\n 10\n 11\n 12\n-13\n+thirteen\n 14\n 15\n 16\n";

#[test]
fn a_hunk_applies_where_it_says() {
    let (text, moved, failed) = apply(&numbered(1..=20), HUNK, 0);
    assert_eq!(text, numbered(1..=20).replace("13\n", "thirteen\n"));
    assert!(moved.is_empty() && failed.is_empty());
}

#[test]
fn a_hunk_that_moved_is_found_and_reported() {
    for (first, offset) in [(3, -2), (0, 1), (1, 0)] {
        let (text, moved, failed) = apply(&numbered(first..=20), HUNK, 0);
        assert!(text.contains("thirteen") && failed.is_empty());
        let offsets: Vec<_> =
            moved.iter().map(|moved| (moved.line as i64, moved.offset, moved.fuzz)).collect();
        let expected = if offset == 0 { vec![] } else { vec![(10 + offset, offset, 0)] };
        assert_eq!(offsets, expected, "{first}");
    }
}

#[test]
fn the_nearest_place_is_taken() {
    let far = numbered(1..=9);
    let original = format!("{HUNKED}{far}x\n{HUNKED}", HUNKED = numbered(10..=16));
    let (text, moved, _) = apply(&original, HUNK, 0);
    // At line 1 and at line 18: the latter is nearer to 10.
    assert_eq!((moved[0].line, moved[0].offset), (18, 8));
    assert!(text.starts_with(&numbered(10..=16)));
}

#[test]
fn later_hunks_move_with_earlier_ones() {
    let block = "a\nb\nc\nd\n";
    let original = format!("new\nnew\n{}{block}{block}{block}", numbered(1..=9));
    let hunks = "@@ -4,3 +4,3 @@\n 4\n-5\n+five\n 6\n@@ -14,3 +14,3 @@\n a\n-b\n+B\n c\n";
    let (text, moved, failed) = apply(&original, hunks, 0);
    assert!(failed.is_empty());
    // Without the move of 2, the block at 14 would be as near as that at 18.
    let lines: Vec<_> = moved.iter().map(|moved| (moved.hunk, moved.line, moved.offset)).collect();
    assert_eq!(lines, [(1, 6, 2), (2, 16, 2)]);
    assert_eq!(text.lines().nth(16), Some("B"));
}

#[test]
fn a_place_far_outside_the_file_is_no_long_way() {
    for start in [30, 4_000_000_000, u64::MAX - 100] {
        let hunk = HUNK.replace("-10,", &format!("-{start},"));
        let (text, moved, failed) = apply(&numbered(1..=20), &hunk, 0);
        assert!(text.contains("thirteen") && failed.is_empty(), "{start}");
        assert_eq!(moved[0].line, 10);
        let (_, _, failed) = apply("1\n2\n", &hunk, 9);
        assert_eq!(failed, [(1, FailReason::Nowhere)], "{start}");
    }
}

#[test]
fn fuzz_is_used_only_where_it_is_allowed() {
    let original = numbered(1..=20).replace("10\n", "ten\n");
    let (_, _, failed) = apply(&original, HUNK, 0);
    assert_eq!(failed, [(1, FailReason::Fuzz(1))]);
    let (text, moved, failed) = apply(&original, HUNK, 2);
    assert!(failed.is_empty());
    assert_eq!((moved[0].fuzz, moved[0].offset), (1, 0));
    assert_eq!(text, original.replace("13\n", "thirteen\n"));
}

#[test]
fn fuzz_never_ignores_what_is_removed() {
    let original = numbered(1..=20).replace("13\n", "XIII\n");
    let (text, _, failed) = apply(&original, HUNK, 9);
    assert_eq!(failed, [(1, FailReason::Differs(13, "XIII".into(), "13".into()))]);
    assert_eq!(text, original);
}

#[test]
fn fuzz_reaches_over_the_end() {
    let original = numbered(1..=14);
    let (text, moved, _) = apply(&original, HUNK, 2);
    assert_eq!(text, original.replace("13\n", "thirteen\n"));
    assert_eq!(moved[0].fuzz, 2);
}

#[test]
fn short_context_means_begin_and_end() {
    let begin = "@@ -1,3 +1,4 @@\n+zero\n 1\n 2\n 3\n";
    let (text, ..) = apply(&numbered(1..=9), begin, 0);
    assert!(text.starts_with("zero\n1\n"));
    assert_eq!(apply(&numbered(0..=9), begin, 0).2, [(1, FailReason::Fuzz(3))]);
    let end = "@@ -7,3 +7,4 @@\n 7\n 8\n 9\n+ten\n";
    let (text, moved, _) = apply(&numbered(3..=9), end, 0);
    assert!(text.ends_with("9\nten\n"));
    assert_eq!(moved[0].offset, -2);
    assert!(!apply(&numbered(1..=10), end, 0).2.is_empty());
}

#[test]
fn what_is_applied_already_is_said_to_be() {
    let original = numbered(1..=20).replace("13\n", "thirteen\n");
    assert_eq!(apply(&original, HUNK, 0).2, [(1, FailReason::Applied)]);
}

#[test]
fn all_failing_hunks_are_reported() {
    let hunks = "@@ -1,1 +1,1 @@\n-x\n+y\n@@ -5,1 +5,1 @@\n-5\n+five\n@@ -9,1 +9,1 @@\n-z\n+y\n";
    let (text, _, failed) = apply(&numbered(1..=9), hunks, 0);
    assert_eq!(failed, [(1, FailReason::Nowhere), (3, FailReason::Nowhere)]);
    assert!(text.contains("five"));
}

#[test]
fn hunks_in_the_wrong_order_do_not_apply() {
    let hunks = "@@ -8,1 +8,1 @@\n-8\n+eight\n@@ -2,1 +2,1 @@\n-2\n+two\n";
    assert_eq!(apply(&numbered(1..=9), hunks, 0).2.len(), 1);
}

#[test]
fn written_lines_are_known() {
    let files = parse(b"--- a/x\n+++ b/x\n@@ -1,4 +1,5 @@\n 1\n-2\n+two\n+more\n 3\n-4\n+four\n").unwrap();
    let outcome = patch_lines(&lines(&numbered(1..=4)), &files[0].hunks, 0);
    assert_eq!(written(&outcome.lines), [(2, 2), (5, 1)]);
}

/// A tree with some files, and what several patches make of it.
fn in_tree(patches: &[&str]) -> Result<Patched, Vec<Error>> {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("fs/d")).unwrap();
    for (path, text) in [("fs/a.c", "a\n"), ("fs/a.c.orig", "a\n"), ("fs/b.c", "b")] {
        std::fs::write(dir.path().join(path), text).unwrap();
    }
    std::fs::write(outside.path().join("x.c"), "a\n").unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
    let mut work = Work::new(dir.path(), 0);
    for patch in patches {
        for file in &parse(patch.as_bytes()).unwrap() {
            work.apply(Path::new("p.patch"), file);
        }
    }
    let result = work.finish();
    assert_eq!(std::fs::read(dir.path().join("fs/a.c")).unwrap(), b"a\n", "the tree is only read");
    result
}

fn contents(patched: &Patched) -> Vec<(&str, Option<&str>)> {
    patched
        .files
        .iter()
        .map(|(path, text)| {
            (path.to_str().unwrap(), text.as_deref().map(|t| std::str::from_utf8(t).unwrap()))
        })
        .collect()
}

#[test]
fn patches_apply_one_after_the_other() {
    let patched = in_tree(&[
        "--- o/fs/a.c\n+++ n/fs/a.c\n@@ -1 +1 @@\n-a\n+A\n",
        "--- o/fs/a.c\n+++ n/fs/a.c\n@@ -1 +1,2 @@\n-A\n+AA\n+B\n--- /dev/null\n+++ b/fs/new.h\n@@ -0,0 +1 @@\n+new\n",
    ])
    .unwrap();
    assert_eq!(contents(&patched), [("fs/a.c", Some("AA\nB\n")), ("fs/new.h", Some("new\n"))]);
    assert!(patched.touched[Path::new("fs/new.h")].created);
    assert_eq!(patched.touched[Path::new("fs/a.c")].lines, [(1, 2)]);
}

#[test]
fn the_name_that_exists_is_meant() {
    let patched = in_tree(&["--- o/fs/a.c.orig\n+++ n/fs/a.c\n@@ -1 +1 @@\n-a\n+A\n"]).unwrap();
    assert_eq!(contents(&patched), [("fs/a.c", Some("A\n"))]);
    let patched = in_tree(&["--- o/fs/b.c\n+++ n/fs/b.c.new\n@@ -1 +1 @@\n-b\n\\ No newline\n+B\n"]).unwrap();
    assert_eq!(contents(&patched), [("fs/b.c", Some("B\n"))]);
}

#[test]
fn files_come_go_and_get_other_names() {
    let rename = "diff --git a/fs/a.c b/fs/c.c\nrename from fs/a.c\nrename to fs/c.c\n--- a/fs/a.c\n+++ b/fs/c.c\n@@ -1 +1 @@\n-a\n+c\n";
    let delete = "--- a/fs/b.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-b\n\\ No newline\n";
    let patched = in_tree(&[rename, delete]).unwrap();
    assert_eq!(contents(&patched), [("fs/a.c", None), ("fs/b.c", None), ("fs/c.c", Some("c\n"))]);
    let create = "--- /dev/null\n+++ b/fs/n.c\n@@ -0,0 +1 @@\n+n\n";
    let gone = "--- a/fs/n.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-n\n";
    assert!(in_tree(&[create, gone]).unwrap().files.is_empty());
}

#[test]
fn what_cannot_be_is_refused_all_at_once() {
    let errors = in_tree(&[
        "--- a/fs/none.c\n+++ b/fs/none.c\n@@ -1 +1 @@\n-a\n+A\n",
        "--- a/link/x.c\n+++ b/link/x.c\n@@ -1 +1 @@\n-a\n+A\n",
        "--- a/fs/d\n+++ b/fs/d\n@@ -1 +1 @@\n-a\n+A\n",
        "--- /dev/null\n+++ b/fs/a.c\n@@ -0,0 +1 @@\n+n\n",
        "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -7 +7 @@\n-q\n+n\n",
    ])
    .unwrap_err();
    let codes: Vec<_> = errors.iter().map(|error| error.code.as_str()).collect();
    assert_eq!(codes, ["no-such-file", "bad-path", "bad-path", "file-exists", "not-applicable"]);
    assert_eq!(errors[4].headline(), "p.patch:3: fs/a.c: Hunk #1 FAILED at 7");
}

proptest::proptest! {
    /// Another tool's patches, applied here, give what they were made from.
    #[test]
    fn patches_of_another_tool_apply(
        original in proptest::collection::vec("[ab]{0,2}", 0..40),
        modified in proptest::collection::vec("[ab]{0,2}", 0..40),
        newlines in (proptest::bool::ANY, proptest::bool::ANY),
        context in 0_usize..5,
    ) {
        let join = |lines: &[String], newline: bool| {
            let text = lines.join("\n");
            if newline && !text.is_empty() { text + "\n" } else { text }
        };
        let (original, modified) = (join(&original, newlines.0), join(&modified, newlines.1));
        proptest::prop_assume!(original != modified && !original.is_empty());
        let mut options = diffy::DiffOptions::new();
        let patch = options.set_context_len(context).create_patch(&original, &modified).to_string();
        let hunks = patch.splitn(3, '\n').nth(2).unwrap();
        let (text, moved, failed) = apply(&original, hunks, 0);
        proptest::prop_assert!(failed.is_empty(), "{failed:?}\n{patch}");
        proptest::prop_assert!(moved.is_empty(), "{moved:?}\n{patch}");
        proptest::prop_assert_eq!(text, modified);
    }
}
