//! `map`: every golden image is drawn as it is loaded, and a picture is written whole, and over nothing that was there.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use common::{Done, Folder, golden, golden_names, known, remapctl, run};
use remap_core::{BaseLba, ListedExtent, ListedState, SpareLba};
use remapctl::map::packed::Packed;
use serde_json::Value;

/// The extents that an image is known to have.
fn extents(known: &Value) -> Vec<ListedExtent> {
    let extent = |extent: &Value| ListedExtent {
        lba: BaseLba(extent["lba"].as_u64().unwrap()),
        num_blocks: extent["num_blocks"].as_u64().unwrap(),
        spare_lba: extent["spare_lba"].as_u64().map(SpareLba),
        state: match extent["state"].as_str().unwrap() {
            "remapped" => ListedState::Remapped,
            "pending" => ListedState::Pending,
            "lost" => ListedState::Lost,
            other => panic!("{other}"),
        },
    };
    known["extents"].as_array().unwrap().iter().map(extent).collect()
}

#[test]
fn every_image_is_drawn_as_it_is_loaded_and_none_is_changed() {
    let folder = Folder::new();
    for name in golden_names() {
        let (path, known) = (folder.golden(&name), known(&name));
        let [svg, html] = ["svg", "html"].map(|format| run("map", &path, &["--format", format]));
        if !known["refused"].is_null() {
            assert_eq!((svg.code, html.code), (2, 2), "{name}");
            assert!(svg.out.is_empty() && html.out.is_empty(), "{name}");
            assert_eq!(svg.err, run("list", &path, &[]).err, "{name}");
            continue;
        }
        assert_eq!((svg.code, html.code), (0, 0), "{name}: {}{}", svg.err, html.err);
        let extents = extents(&known);
        let count =
            |state| extents.iter().filter(|extent| extent.state == state).map(|extent| extent.num_blocks).sum::<u64>();
        let [remapped, pending, lost] = [ListedState::Remapped, ListedState::Pending, ListedState::Lost].map(count);
        let summary = format!("{remapped} are remapped, {pending} pending, {lost} lost");
        assert!(svg.out.contains(&summary) && html.out.contains(&summary), "{name}: no {summary}");
        // The page has every extent.
        let mut packed = Packed::default();
        extents.iter().for_each(|extent| packed.push(extent));
        let data = format!(
            "<script id=\"extents\" type=\"application/octet-stream\">{}</script>",
            BASE64_STANDARD.encode(packed.bytes())
        );
        assert!(html.out.contains(&data), "{name}");
        let bad = &known["bad_spare_blocks"];
        assert!(svg.out.contains(&format!("free, {bad} bad")), "{name}: {bad}");
        assert!(fs::read(&path).unwrap() == golden(&name), "{name} was changed");
    }
}

#[test]
fn what_is_damaged_chosen_or_lost_is_told() {
    let folder = Folder::new();
    let drawn = |name: &str, more: &[&str]| run("map", &folder.golden(name), more);
    let damaged = drawn("damaged-copy", &["--format", "svg"]).out;
    assert!(damaged.contains("metadata degraded") && damaged.contains("bad: log copy A"), "{damaged}");
    let lost = drawn("lost", &[]).out;
    assert!(lost.contains("LBA 60 to 61, 8 KiB from byte 245,760 on"), "{lost}");
    assert_eq!(drawn("damaged", &[]).code, 2);
    let chosen = drawn("damaged", &["--at", "1:7"]);
    assert!(chosen.code == 0 && chosen.out.contains("the state that is drawn"), "{}", chosen.err);
}

#[test]
fn a_picture_is_written_whole_and_over_nothing_that_was_there() {
    let folder = Folder::new();
    let spare = folder.golden("lost");
    let map = |output: &Path, more: &[&str]| {
        let args = ["map".as_ref(), spare.as_os_str(), "--output".as_ref(), output.as_os_str()].into_iter();
        Done::of(remapctl(args.chain(more.iter().map(AsRef::as_ref))).output().unwrap())
    };
    let (svg, html) = (folder.path("map.SVG"), folder.path("map.page"));
    assert_eq!((map(&svg, &[]).code, map(&html, &[]).code), (0, 0));
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    assert!(read(&svg).starts_with("<?xml ") && read(&html).starts_with("<!DOCTYPE html>"));

    let other = folder.file("base.img", b"data of somebody");
    let there = map(&other, &[]);
    assert!(there.code == 8 && there.err.contains("base.img: it is there already"), "{}", there.err);
    assert_eq!(read(&other), "data of somebody");
    assert_eq!(map(&other, &["--force", "--format", "svg"]).code, 0);
    assert!(read(&other).starts_with("<?xml "));
    // Neither the spare, by whatever name, nor what is no file.
    let link = folder.path("link");
    symlink(&spare, &link).unwrap();
    for output in [&spare, &link] {
        let done = map(output, &["--force"]);
        assert!(done.code == 8 && done.err.contains("is the base or the spare"), "{}", done.err);
    }
    for output in [Path::new("/dev/null"), &folder.path("")] {
        assert_eq!(map(output, &["--force"]).code, 8, "{}", output.display());
    }
    assert_eq!(map(&folder.path("nowhere/map.svg"), &[]).code, 8);
    assert!(fs::read(&spare).unwrap() == golden("lost"));
    // Nothing is left over of what failed.
    let mut names: Vec<_> = fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["base.img", "link", "lost.img", "map.SVG", "map.page"]);
}
