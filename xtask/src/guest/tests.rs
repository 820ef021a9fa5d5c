use super::*;

fn case(name: &str) -> Case {
    Case { name: name.to_owned(), ..Case::default() }
}

fn boot(console: &str, report: &str, end: End) -> machine::Boot {
    machine::Boot { console: console.to_owned(), report: report.to_owned(), end }
}

fn options() -> Options {
    Options::new(PathBuf::from("unused"))
}

#[test]
fn a_panic_fails_its_case_only() {
    let boot = boot(
        "up\nkpatch-guest: begin 0\nkpatch-guest: end 0\nkpatch-guest: begin 1\n",
        "@@ ready r\n@@ begin 0\n@@ end 0 0\n@@ begin 1\n",
        End::Panic("why".to_owned()),
    );
    let outcomes = judge(&[case("a"), case("b"), case("c")], &boot, &options()).unwrap();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes[0].passed());
    assert_eq!(outcomes[1].failures.len(), 1);
    assert!(outcomes[1].failures[0].reason.contains("why"));
}

#[test]
fn a_death_between_cases_is_blamed_on_the_one_before() {
    let boot = boot("kpatch-guest: begin 0\n", "@@ begin 0\n@@ end 0 0\n", End::Reset);
    let outcomes = judge(&[case("a"), case("b")], &boot, &options()).unwrap();
    assert_eq!(outcomes.len(), 1);
    assert!(!outcomes[0].passed());
}

#[test]
fn a_boot_that_reaches_no_case_says_nothing_about_cases() {
    assert!(judge(&[case("a")], &boot("", "", End::Hang), &options()).unwrap_err().contains("hangs"));
    let sick =
        boot("WARNING: at boot\nkpatch-guest: begin 0\n", "@@ begin 0\n@@ end 0 0\n@@ done\n", End::Done);
    assert!(judge(&[case("a")], &sick, &options()).is_err());
}

#[test]
fn the_log_of_a_case_counts() {
    let boot = boot(
        "kpatch-guest: begin 0\nBUG: sleeping function\n",
        "@@ begin 0\n@@ end 0 0\n@@ done\n",
        End::Done,
    );
    let outcomes = judge(&[case("a")], &boot, &options()).unwrap();
    assert_eq!(outcomes[0].failures[0].step, "kernel log");
}
