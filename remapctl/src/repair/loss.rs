//! What is lost with a state that is chosen, in words.

use remap_core::GivenUp;

use crate::units::counted;

/// The pages that are given up, and the blocks that they tell something else of; nothing if there are none.
pub(super) fn words(gives_up: &GivenUp) -> Option<String> {
    let GivenUp { pages, unknown_pages, remapped, pending, lost, cleared, overwritten } = *gives_up;
    let mut parts = Vec::new();
    if pages > 0 {
        let (pages, remapped) = (counted(pages, "page"), counted(remapped, "block"));
        parts.push(format!(
            "{pages} of the log: {remapped} remapped, {pending} pending, {lost} lost, {cleared} on the base again"
        ));
    }
    if overwritten > 0 {
        let (blocks, show) = (counted(overwritten, "block"), if overwritten == 1 { "shows" } else { "show" });
        parts.push(format!(
            "{blocks} of this state {show} the data of another block, which was given the place on the spare"
        ));
    }
    if unknown_pages > 0 {
        let pages = counted(unknown_pages, "page");
        parts.push(format!(
            "{pages} that cannot be read: nobody knows what was there, and whether more blocks show the data of others"
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_lost_is_told() {
        let nothing = GivenUp::default();
        assert_eq!(words(&nothing), None);
        let all = GivenUp { pages: 2, unknown_pages: 1, remapped: 3, pending: 4, lost: 5, cleared: 6, overwritten: 1 };
        let said = words(&all).unwrap_or_default();
        assert_eq!(
            said,
            "2 pages of the log: 3 blocks remapped, 4 pending, 5 lost, 6 on the base again; and 1 block of this state shows the data of \
             another block, which was given the place on the spare; and 1 page that cannot be read: nobody knows what was there, and whether \
             more blocks show the data of others"
        );
        let some = words(&GivenUp { pages: 1, remapped: 1, ..nothing }).unwrap_or_default();
        assert_eq!(some, "1 page of the log: 1 block remapped, 0 pending, 0 lost, 0 on the base again");
    }
}
