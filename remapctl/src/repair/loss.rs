//! What is lost with a state that is chosen, in words.

use remap_core::GivenUp;

/// The pages that are given up, and the blocks that they tell something else of; nothing if there are none.
pub(super) fn words(gives_up: &GivenUp) -> Option<String> {
    let GivenUp { pages, unknown_pages, remapped, pending, lost, cleared } = *gives_up;
    let known = format!(
        "{} of the log: {} remapped, {pending} pending, {lost} lost, {cleared} on the base again",
        counted(pages, "page"),
        counted(remapped, "block")
    );
    let unknown = format!("{} that cannot be read: nobody knows what was there", counted(unknown_pages, "page"));
    match (pages, unknown_pages) {
        (0, 0) => None,
        (_, 0) => Some(known),
        (0, _) => Some(unknown),
        _ => Some(format!("{known}; and {unknown}")),
    }
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
