//! Bugs on purpose, to show that the simulation finds them. Without the feature `mutations` there are none: `active` is
//! false where it is compiled, and nothing of this is left.

macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug that can be switched on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutation {
            $($(#[$doc])* $name,)*
        }

        #[cfg(feature = "mutations")]
        impl Mutation {
            /// All of them.
            pub const ALL: &[Mutation] = &[$(Mutation::$name,)*];

            /// Whether it is only in the way of a set that moves to another spare.
            #[must_use]
            pub fn is_of_migration(self) -> bool {
                self as usize >= Mutation::WriteNotMirrored as usize
            }
        }
    };
}

mutations! {
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
    /// A batch is answered when all but its last page are durable.
    AnswerOnePageEarly,
    /// Of a batch of several pages, the second is not written.
    SecondPageNotWritten,
    /// A write whose commit is in doubt leaves its blocks as they were: they can be written without a commit.
    DoubtForgotten,
    /// A commit that one copy of the log missed is not noted in the superblocks.
    CommitNotNoted,
    /// Recovery does not look at what the superblocks noted.
    NoteIgnored,
    /// The log is gone on with after an open, under the same epoch.
    GoOnInTheSameEpoch,
    /// A checkpoint that failed and the next one have the same epoch.
    EpochUsedTwice,
    /// The later parts of a checkpoint are written over its first.
    ChunkOverTheFirst,
    /// A log area with bad pages is used as it is.
    AreaNotZeroed,
    /// A checkpoint forgets which spare blocks are bad.
    BadSpareBlocksNotSaved,
    /// Both superblocks are written before either is flushed.
    SuperblocksTogether,
    /// A superblock that could not be read has the same sequence number as the next.
    SuperblockSequenceUsedTwice,
    /// Of two superblocks, the older one is believed.
    OlderSuperblock,
    /// What is read is not made durable before it is relied on.
    NoFlushBeforeReading,
    /// Recovery takes the first area, whatever the epochs say.
    IgnoreEpoch,
    /// An epoch one below that of the superblock is taken for good, and with it an end below what is noted.
    EpochOffByOne,
    /// A set whose last process died is loaded as if it had been closed.
    DeathForgotten,
    /// Of a set that was opened and not saved, the superblocks do not say that its log ends.
    EndNotNoted,
    /// An attempt at a checkpoint counts although it was given up, and records were committed since.
    GivenUpCounts,
    /// Recovery takes a page whose checksum is wrong.
    TrustPageWithoutCrc,
    /// Recovery takes a page that belongs somewhere else.
    IgnorePlaceOfPage,
    /// Recovery takes a page that is another one than the one it has judged.
    ReadAgainTrusted,
    /// A checkpoint counts as complete with its first page.
    CompleteWithFirstPage,
    /// A page that is bad in all copies where the log could end is taken for its end.
    BadPageTakenForEnd,
    /// An error that is not of the medium is taken for a bad page.
    TransientErrorIsVerdict,
    /// A copy that is found to be bad at open is not made whole.
    FoundDamageNotHealed,
    /// The bad spare block that a block moves away from is given to others before the move is durable.
    ReplacedSpareFreedTooEarly,
    /// A spare block that is free again is given to others while reads of it are under way.
    FreedSpareNotDrained,
    /// Blocks that are being moved can be written meanwhile.
    GateLeftOpen,
    /// Blocks are moved while writes of them are under way.
    GateNotDrained,
    /// A list of blocks counts as relocated, and is open to writes, before that is durable.
    ListAnsweredBeforeCommit,
    /// A spare block that failed a write is given to others.
    BadReservationReleased,
    /// A scrub copies pending blocks while hosts write them.
    ScrubWithoutLock,
    /// A scrub takes pending blocks for rescued that it could not read.
    ScrubKeepsFailedReads,
    /// A write of a pending block goes to the base.
    WritePendingToBase,
    /// An I/O of several blocks goes where its first block lives.
    LookUpFirstBlockOnly,
    /// The filter of a region is asked for the first of several blocks.
    FilterOfFirstBlockOnly,
    /// A FLUSH goes to the base only.
    FlushLeavesSpareOut,
    /// What a spare has grown by is used before the metadata has moved out of it.
    GrowthNotWaitedFor,
    /// What a spare has grown by is used although a write of the metadata that was there may still come true.
    GrownOverLateWrites,
    // From here on: of migrations.
    /// What is on the other spare already is written to one only, while all moves there.
    WriteNotMirrored,
    /// Writes of one block to both spares are under way together.
    MirroredWritesTogether,
    /// A block that was copied, and moved since, is not copied again.
    ChangeNotForgotten,
    /// What was copied counts also where the block has changed meanwhile.
    ChangedWhileCopied,
    /// After a crash in between, the new spare comes into force before what the old one says of it is known to be durable.
    GivenUpInCacheOnly,
    /// The new spare comes into force without the old one saying that it was given up.
    OldSpareNotGivenUp,
    /// The new spare comes into force when one superblock of the old one says that it was given up.
    GivenUpOnOneCopy,
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
#[must_use]
pub fn active(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

/// Whether the bug is switched on: never.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub(crate) const fn active(_: Mutation) -> bool {
    false
}
