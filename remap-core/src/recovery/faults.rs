//! Which pages of the log are not what they should be, and what each of them should be: the rules, without any I/O.
//!
//! Rests on what [`mod@super::choose`] has found to be in force, and changes nothing of it, also where a write of such a page is torn: within
//! the log a page is written over only where the other copy holds it, and elsewhere only where it is bad. It becomes what the other
//! copy has, or zeros: never more than it may have been.
//!
//! Where an operator has chosen a state that is not in force by itself, all pages of other states have to go as well, as if they were bad. The first page of
//! the other area goes before them, from both copies: no checkpoint there is complete from then on, so that none of what is left of it
//! can come into force, whichever of its pages are there.

use super::choose::Chosen;
use super::scan::{PageState, Pages};
use crate::format::{Area, Copy, PageAt, PageInfo, PerArea};

/// A page of one copy that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageFault {
    pub(crate) at: PageAt,
    /// What it is: "bad", "missing", "older" or "not chosen".
    pub(crate) what: &'static str,
    /// What the other copy says there, and this one should; zeros if there is nothing.
    pub(crate) should_be: Option<PageInfo>,
    /// Whether it has to be durable before all others: it is what the completeness of the other area's checkpoint rests on.
    pub(crate) first: bool,
}

/// All of them, those of copy A first; `stated` if the state was chosen by an operator.
pub(super) fn faults(areas: &PerArea<Pages>, chosen: &Chosen, stated: bool) -> Vec<PageFault> {
    let mut found = Vec::new();
    for copy in Copy::BOTH {
        for area in Area::BOTH {
            let pages = areas[area][copy].iter().zip(&areas[area][copy.other()]);
            found.extend((0..).zip(pages).filter_map(|(index, (state, other))| {
                fault(chosen, stated, PageAt { copy, area, index }, state, other)
            }));
        }
    }
    found
}

fn fault(chosen: &Chosen, stated: bool, at: PageAt, state: &PageState, other: &PageState) -> Option<PageFault> {
    let first = stated && at.area != chosen.area && at.index == 0;
    let fault = |what, should_be| Some(PageFault { at, what, should_be, first });
    if at.area == chosen.area && at.index < chosen.end {
        let held = |state: &PageState| state.info().filter(|info| info.epoch == chosen.epoch).copied();
        // One copy at least holds it: that is how the end was found.
        let should_be = held(other).filter(|_| held(state).is_none())?;
        let what = match state {
            PageState::Zero => "missing",
            PageState::Valid(info, _) if info.epoch < chosen.epoch => "older",
            PageState::Valid(..) | PageState::Bad => "bad",
        };
        return fault(what, Some(should_be));
    }
    let stays = |state: &PageState| state.info().filter(|info| !stated || info.epoch < chosen.epoch).copied();
    match state {
        PageState::Bad => fault("bad", stays(other)),
        // As if it were bad: where its erasure is torn, it is written like this again.
        PageState::Valid(..) if stays(state).is_none() => fault("not chosen", stays(other)),
        PageState::Valid(..) | PageState::Zero => None,
    }
}
