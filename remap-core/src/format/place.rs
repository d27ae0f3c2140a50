//! The names of what there are two of: the copies of the metadata, and the areas of the log.

use std::ops::{Index, IndexMut};

/// One of the two copies of superblock and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// At the start of the spare.
    A,
    /// At its end.
    B,
}

impl Copy {
    /// Both, in the order in which they are written.
    pub const BOTH: [Copy; 2] = [Copy::A, Copy::B];

    /// Its place in arrays, and its number on the spare.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Copy::A => 0,
            Copy::B => 1,
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Copy {
        match self {
            Copy::A => Copy::B,
            Copy::B => Copy::A,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> char {
        match self {
            Copy::A => 'A',
            Copy::B => 'B',
        }
    }
}

/// One of the two areas of the log: one is in force, the other takes the next checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The first.
    Zero,
    /// The second.
    One,
}

impl Area {
    /// Both.
    pub const BOTH: [Area; 2] = [Area::Zero, Area::One];

    /// Its place in arrays, and its number on the spare.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Area::Zero => 0,
            Area::One => 1,
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Area {
        match self {
            Area::Zero => Area::One,
            Area::One => Area::Zero,
        }
    }
}

/// One of something for each copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerCopy<T>(pub [T; 2]);

impl<T> PerCopy<T> {
    /// What `make` makes for each copy.
    pub fn each(make: impl FnMut(Copy) -> T) -> PerCopy<T> {
        PerCopy(Copy::BOTH.map(make))
    }

    /// Both.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl PerCopy<bool> {
    /// Both true.
    pub const BOTH: PerCopy<bool> = PerCopy([true; 2]);
    /// Both false.
    pub const NONE: PerCopy<bool> = PerCopy([false; 2]);

    /// Whether both are.
    #[must_use]
    pub fn all(self) -> bool {
        self.0[0] && self.0[1]
    }

    /// Whether at least one is.
    #[must_use]
    pub fn any(self) -> bool {
        self.0[0] || self.0[1]
    }
}

impl<T> Index<Copy> for PerCopy<T> {
    type Output = T;

    fn index(&self, copy: Copy) -> &T {
        &self.0[copy.index()]
    }
}

impl<T> IndexMut<Copy> for PerCopy<T> {
    fn index_mut(&mut self, copy: Copy) -> &mut T {
        &mut self.0[copy.index()]
    }
}

/// One of something for each area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerArea<T>(pub [T; 2]);

impl<T> PerArea<T> {
    /// What `make` makes for each area.
    pub fn each(make: impl FnMut(Area) -> T) -> PerArea<T> {
        PerArea(Area::BOTH.map(make))
    }

    /// Both.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<Area> for PerArea<T> {
    type Output = T;

    fn index(&self, area: Area) -> &T {
        &self.0[area.index()]
    }
}

impl<T> IndexMut<Area> for PerArea<T> {
    fn index_mut(&mut self, area: Area) -> &mut T {
        &mut self.0[area.index()]
    }
}
