use super::*;

fn one(text: &str) -> FilePatch {
    let mut files = parse(text.as_bytes()).unwrap();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

fn problems(text: &str) -> Vec<(usize, Problem)> {
    parse(text.as_bytes()).unwrap_err().into_iter().map(|error| (error.line, error.problem)).collect()
}

const MAIL: &str = "\
From: A
Subject: [PATCH] fix

--- not a header
Text.
---
 fs/a.c | 2 +-

diff --git a/fs/a.c b/fs/a.c
index 1..2 100644
--- a/fs/a.c
+++ b/fs/a.c
@@ -2,3 +2,3 @@ int f(void)
 {
-	return 1;
+	return 2;

@@ -9 +9,0 @@
-old
-- 
2.39
";

#[test]
fn a_mail_is_understood() {
    let file = one(MAIL);
    assert_eq!(file.action, Action::Modify("fs/a.c".into(), "fs/a.c".into()));
    assert_eq!(file.line, 9);
    let lines: Vec<_> = file.hunks.iter().map(|hunk| (hunk.line, hunk.old_start, hunk.lines.len())).collect();
    assert_eq!(lines, [(13, 2, 4), (18, 9, 1)]);
    assert_eq!(file.hunks[0].lines[3], Line { kind: LineKind::Context, text: b"\n".to_vec() });
}

#[test]
fn creation_deletion_renaming_and_copying_are_told_apart() {
    let action = |text: &str| one(text).action;
    assert_eq!(action("--- /dev/null\n+++ b/x.c\n@@ -0,0 +1 @@\n+a\n"), Action::Create("x.c".into()));
    assert_eq!(action("--- a/x.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"), Action::Delete("x.c".into()));
    let epoch = "--- o/x.c\t1970-01-01 00:00:00.0 +0000\n+++ n/x.c\t2020-01-01\n@@ -0,0 +1 @@\n+a\n";
    assert_eq!(action(epoch), Action::Create("x.c".into()));
    let git = "diff --git a/x.c b/y.c\nsimilarity index 100%\nrename from x.c\nrename to y.c\n";
    assert_eq!(action(git), Action::Rename("x.c".into(), "y.c".into()));
    assert_eq!(action(&git.replace("rename", "copy")), Action::Copy("x.c".into(), "y.c".into()));
    let empty = "diff --git a/d/x.c b/d/x.c\nnew file mode 100644\nindex 000..111\n";
    assert_eq!(action(empty), Action::Create("d/x.c".into()));
    let mode = "diff --git a/d/x.c b/d/x.c\nold mode 100644\nnew mode 100755\n";
    assert_eq!(action(mode), Action::Modify("d/x.c".into(), "d/x.c".into()));
}

#[test]
fn a_missing_newline_is_kept_in_mind() {
    let file = one(
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n",
    );
    let texts: Vec<_> = file.hunks[0].lines.iter().map(|line| line.text.as_slice()).collect();
    assert_eq!(texts, [b"a", b"b"]);
    assert_eq!(
        problems("--- a/x\n+++ b/x\n@@ -1 +1 @@\n\\ No newline\n-a\n+b\n"),
        [(4, Problem::StrayRemark)]
    );
}

#[test]
fn line_ends_of_other_systems_are_taken_off() {
    let file = one(&MAIL.replace('\n', "\r\n"));
    assert_eq!(file.hunks[0].lines[1].text, b"\treturn 1;\n");
    // Where only the contents have them, they are the file's own.
    let file = one("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\r\n+b\r\n");
    assert_eq!(file.hunks[0].lines[0].text, b"a\r\n");
}

#[test]
fn paths_that_leave_the_tree_are_refused() {
    for (path, reason) in [
        ("a/../../etc/passwd", "climbs"),
        ("/etc/passwd", "absolute"),
        ("x.c", "stripped"),
        ("\"a/\\056\\056/x.c\"", "climbs"),
        ("\"a/\\000\"", "NUL"),
        ("\"a/x", "quoted"),
    ] {
        let text = format!("--- {path}\n+++ b/x.c\n@@ -1 +1 @@\n-a\n+b\n");
        match problems(&text).as_slice() {
            [(1, Problem::Path { reason: found, .. })] => assert!(found.contains(reason), "{path}: {found}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    let renamed = "diff --git a/x.c b/y.c\nrename from x.c\nrename to ../y.c\n";
    assert!(matches!(problems(renamed)[..], [(1, Problem::Path { .. })]));
}

#[test]
fn unusual_names_are_unquoted() {
    let file =
        one("--- \"a/\\303\\244 \\\"x\\\".c\"\n+++ \"b/\\303\\244 \\\"x\\\".c\"\n@@ -1 +1 @@\n-a\n+b\n");
    assert_eq!(file.action, Action::Modify("ä \"x\".c".into(), "ä \"x\".c".into()));
}

#[test]
fn nothing_is_dropped_in_silence() {
    let header = "--- a/x\n+++ b/x\n";
    for (body, line, problem) in [
        ("@@ -1 +1 @@\n-a\n", 3, Problem::HunkShort),
        ("@@ -1 +1 @@\n-a\n-b\n", 5, Problem::HunkShort),
        ("@@ -1 +1 @@\n-a\n+b\n+c\n", 6, Problem::HunkLong),
        (
            "@@ -1,99999999999999999999 +1 @@\n",
            3,
            Problem::HunkHeader { header: "@@ -1,99999999999999999999 +1 @@".into() },
        ),
        (
            "@@ -1,18446744073709551615 +1 @@\n",
            3,
            Problem::HunkHeader { header: "@@ -1,18446744073709551615 +1 @@".into() },
        ),
        ("@@ bogus @@\n", 3, Problem::HunkHeader { header: "@@ bogus @@".into() }),
    ] {
        assert_eq!(problems(&format!("{header}{body}"))[0], (line, problem), "{body}");
    }
    assert_eq!(problems(header), [(1, Problem::NoHunks)]);
    assert_eq!(problems("text only\n"), [(1, Problem::Empty)]);
    assert_eq!(problems("@@ -1 +1 @@\n-a\n+b\n"), [(1, Problem::NoFile)]);
    assert_eq!(problems("*** a/x\n--- b/x\n***************\n*** 1 ***\n"), [(1, Problem::ContextDiff)]);
}

#[test]
fn what_is_no_text_is_refused() {
    let binary = "diff --git a/x.bin b/x.bin\nindex 1..2 100644\nGIT binary patch\nliteral 3\nzzz\n\n";
    assert_eq!(problems(binary), [(1, Problem::Binary { path: "x.bin".into() })]);
    let differ = "diff --git a/x b/x\nBinary files a/x and b/x differ\n";
    assert_eq!(problems(differ), [(1, Problem::Binary { path: "x".into() })]);
    let link = "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n";
    assert_eq!(problems(link), [(1, Problem::NotAFile { path: "x".into() })]);
}

#[test]
fn an_error_does_not_hide_the_next_file() {
    let text = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n--- /y\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n";
    let lines: Vec<_> = problems(text).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [5, 5]);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(text in "(diff --git a/x b/x\n|--- a/x\n|\\+\\+\\+ b/x\n|@@ -[0-9]{1,2},[0-9] \\+[0-9],[0-9] @@\n|[-+ \\\\].{0,3}\n|rename from .{0,3}\n|\n){0,12}") {
        let _ = parse(text.as_bytes());
    }

    #[test]
    fn no_arbitrary_bytes_make_it_panic(text in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = parse(&text);
    }
}
