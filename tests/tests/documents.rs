//! The documents are true, as far as a program can tell: what they name exists, and what exists is in them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use e2e::{config::Config, project, target::Target};
use serde_json::{Value, json};

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands in `text` between two backticks of one line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// All files with this ending below `folder`.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

fn documents() -> Vec<PathBuf> {
    let top = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| project().join(name));
    files(&project().join("docs"), ".md").into_iter().chain(top).collect()
}

const FOLDERS: [&str; 12] = [
    "bdev_fault",
    "bdev_remap",
    "docs",
    "fuzz",
    "remap-core",
    "remap-sim",
    "remapctl",
    "rpc",
    "scripts",
    "spdk",
    "spdk-sys",
    "tests",
];

#[test]
fn paths_that_are_named_exist() {
    let mut named = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let known = |word: &&str| word.split_once('/').is_some_and(|(folder, _)| FOLDERS.contains(&folder));
        for path in quoted(&text).flat_map(str::split_whitespace).filter(known).flat_map(spelled_out) {
            assert!(project().join(&path).exists(), "{}: {path}", document.display());
            named += 1;
        }
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            assert!(document.parent().unwrap().join(link).exists(), "{}: {link}", document.display());
        }
    }
    assert!(named > 100, "only {named} paths were recognised");
}

#[test]
fn every_file_of_tests_is_part_of_them() {
    let all = read("tests/tests/all.rs");
    let files = files(&project().join("tests/tests"), ".rs");
    let names = files.iter().map(|file| file.file_stem().unwrap().to_str().unwrap()).filter(|name| *name != "all");
    let missing: Vec<_> = names.filter(|name| !all.contains(&format!("\nmod {name};\n"))).collect();
    assert_eq!(missing, [""; 0]);
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn spelled_out(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?))) {
        Some((head, (names, tail))) => names.split(',').map(|name| format!("{head}{name}{tail}")).collect(),
        None => vec![path.to_owned()],
    }
}

#[test]
fn unsafe_code_is_where_the_architecture_says() {
    let architecture = read("docs/architecture.md");
    let (_, section) = architecture.split_once("### Where unsafe code is").unwrap();
    let said: BTreeSet<_> = quoted(section.split("\n**").next().unwrap()).map(str::to_owned).collect();
    let has_some = |path: &&PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let code = |line: &str| {
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"]
                .iter()
                .any(|word| line.contains(word))
        };
        text.lines().any(|line| code(line) && !line.trim_start().starts_with("//"))
    };
    let folders =
        ["bdev_fault/src", "bdev_remap", "remap-core/src", "remap-sim/src", "remapctl/src", "spdk/src", "tests/src"];
    let all: Vec<_> = folders.iter().flat_map(|folder| files(&project().join(folder), ".rs")).collect();
    let product = all.iter().filter(|path| !path.to_str().unwrap().ends_with("tests.rs"));
    let found: BTreeSet<_> = product
        .filter(has_some)
        .map(|path| path.strip_prefix(project()).unwrap().display().to_string())
        .chain(["spdk-sys/".to_owned()])
        .collect();
    let said = said.into_iter().filter(|word| word.contains('/')).collect();
    assert_eq!(found, said);
}

#[test]
fn files_of_bdev_remap_use_only_those_further_down() {
    let top = read("bdev_remap/lib.rs");
    let list = top.split("//! ```").nth(1).unwrap();
    let order: Vec<_> = list.lines().filter_map(|line| line.strip_prefix("//! ")?.split_whitespace().next()).collect();
    for path in files(&project().join("bdev_remap"), ".rs") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name == "lib" {
            continue;
        }
        let place =
            order.iter().position(|other| *other == name).unwrap_or_else(|| panic!("{name} is not in the list"));
        let text = fs::read_to_string(&path).unwrap();
        for used in imported(&text) {
            let below = order.iter().position(|other| *other == used);
            assert!(below.is_some_and(|below| below > place), "{name} uses {used}");
        }
    }
}

/// The modules of its crate that a file imports, or names in its code.
fn imported(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut found = BTreeSet::new();
    for (before, rest) in text.match_indices("crate::").map(|(at, word)| (&text[..at], &text[at + word.len()..])) {
        if before.rsplit('\n').next().is_some_and(|line| line.contains("//")) {
            continue;
        }
        let Some(list) = rest.strip_prefix('{') else {
            found.extend(rest.split(|c| !is_name(c)).next());
            continue;
        };
        let mut depth = 1;
        let outside = |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            (depth == 1 && c == ',') || depth == 0
        };
        // An item ends at a comma that is in no inner braces, the list with the outer ones.
        let items = list.split_once("};").map_or(list, |(items, _)| items).split(outside);
        found
            .extend(items.filter_map(|item| item.trim().split(|c| !is_name(c)).next()).filter(|name| !name.is_empty()));
    }
    found
}

#[test]
fn sentences_that_are_explained_are_printed() {
    let text = read("docs/operations.md");
    let (_, section) = text.split_once("| sentence |").unwrap();
    let rows = section.lines().skip(2).take_while(|line| line.starts_with('|'));
    let sentences: Vec<_> = rows.flat_map(|row| quoted(row.split(" | ").next().unwrap())).collect();
    assert!(sentences.len() > 15, "{sentences:?}");
    let sources = files(&project().join("bdev_remap"), ".rs").into_iter().map(|path| fs::read_to_string(path).unwrap());
    let sources = sources.chain([read("remap-core/src/error.rs")]).collect::<String>().replace("\\\"", "\"");
    for sentence in sentences {
        let printed = sources.lines().any(|line| {
            let mut rest = Some(line);
            for part in sentence.split('…') {
                rest = rest.and_then(|rest| Some(rest.split_once(part)?.1));
            }
            rest.is_some()
        });
        assert!(printed, "no such sentence: {sentence}");
    }
}

/// The section of docs/rpc.md on a method.
fn section<'a>(document: &'a str, method: &str) -> &'a str {
    let heading = format!("\n## {method}\n");
    let (_, rest) = document.split_once(&heading).unwrap_or_else(|| panic!("docs/rpc.md has no section {method}"));
    rest.split("\n## ").next().unwrap()
}

/// Asserts that the section of docs/rpc.md on `method` names every field of `answer`.
fn documented(document: &str, method: &str, answer: &Value) {
    match answer {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            let named = quoted(section(document, method)).any(|word| word == name);
            assert!(named, "docs/rpc.md does not say what {name} is in the answer of {method}");
            documented(document, method, value);
        }),
        Value::Array(items) => items.iter().for_each(|item| documented(document, method, item)),
        _ => {}
    }
}

#[test]
fn every_method_is_documented_with_all_parameters_and_fields() {
    let document = read("docs/rpc.md");
    let uuid = |n: u32| format!("eeeeeeee-0000-4000-8000-00000000000{n}");
    let mut target = Target::with(&Config::new().malloc("Base", 16, 4096).malloc("Spare", 16, 4096));

    let methods = target.rpc("rpc_get_methods", Value::Null);
    let ours = |name: &&str| name.starts_with("bdev_remap_") || name.starts_with("bdev_fault_");
    let ours: Vec<_> = methods.as_array().unwrap().iter().filter_map(Value::as_str).filter(ours).collect();
    assert!(ours.len() >= 18, "{ours:?}");
    for method in &ours {
        // The refusal names all parameters that there are.
        let (_, refusal) = target.refused(method, json!({ "nonsense": 1 }));
        let parameters: Vec<_> = quoted(&refusal).filter(|word| *word != "nonsense").collect();
        assert!(!parameters.is_empty(), "{method}: {refusal}");
        let table = section(&document, method).lines().filter(|line| line.starts_with("| `")).collect::<Vec<_>>();
        for parameter in parameters {
            let named = table.iter().any(|row| quoted(row.split(" | ").next().unwrap()).any(|word| word == parameter));
            assert!(named, "docs/rpc.md does not say what {parameter} is for {method}");
        }
    }

    let call = |method: &str, params: Value| documented(&document, method, &target.rpc(method, params));
    call("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base" }));
    call("bdev_fault_inject", json!({ "name": "Fault0", "lba": 9, "num_blocks": 1, "op": "all", "error": "io" }));
    call("bdev_fault_list", json!({ "name": "Fault0" }));
    call("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare" }));
    let expected = json!({ "name": "Remap1", "uuid": uuid(1), "base_uuid": uuid(2), "spare_uuid": uuid(3) });
    call("bdev_remap_expect", expected);
    call("bdev_remap_scrub", json!({ "name": "Remap0", "max_mbps": 1 }));
    call("bdev_remap_status", json!({}));
    for method in ["bdev_remap_list", "bdev_remap_save", "bdev_remap_restore", "bdev_remap_set_options"] {
        call(method, json!({ "name": "Remap0" }));
    }
    call("bdev_remap_set_module_options", json!({}));
    target.stop();
}
