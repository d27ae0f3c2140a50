//! Bugs on purpose, to show that the simulation finds them. Without the feature `mutations` there are none: `active` is
//! false where it is compiled, and nothing of this is left.

/// A bug that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The record may become durable before the data that it speaks of.
    SkipFlushBeforeRecord,
    /// Readers see a mapping that is not durable yet.
    PublishBeforeCommit,
    /// A relocated write is acknowledged when its mapping is written, before it is durable.
    CompleteBeforeCommit,
    /// A spare block that the log may speak of is given to another block.
    ReuseSpareTooEarly,
    /// The next commit overwrites the last page.
    RewriteCommittedPage,
    /// Recovery takes the first area, whatever the epochs say.
    IgnoreEpoch,
    /// Recovery takes a page whose checksum is wrong.
    TrustPageWithoutCrc,
}

#[cfg(feature = "mutations")]
impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 7] = [
        Mutation::SkipFlushBeforeRecord,
        Mutation::PublishBeforeCommit,
        Mutation::CompleteBeforeCommit,
        Mutation::ReuseSpareTooEarly,
        Mutation::RewriteCommittedPage,
        Mutation::IgnoreEpoch,
        Mutation::TrustPageWithoutCrc,
    ];
}

#[cfg(feature = "mutations")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Switches a bug on, for this thread, or all off.
#[cfg(feature = "mutations")]
pub fn activate(mutation: Option<Mutation>) {
    ACTIVE.set(mutation);
}

/// Whether the bug is switched on.
#[cfg(feature = "mutations")]
pub(crate) fn active(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

/// Whether the bug is switched on: never.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub(crate) const fn active(_: Mutation) -> bool {
    false
}
