//! Extents as an operator lists them, in JSON: a string such as `4096+8,8200`, or an array. SPDK takes 1,024 values in a request,
//! so that a long list has to be a string.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use thiserror::Error as ThisError;

use crate::ranges::Ranges;
use crate::units::{BaseLba, Extent};

/// Extents, as they were listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentList(Vec<Extent>);

/// What is wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum ListError {
    /// It is empty.
    #[error("no extent is listed; nothing was changed")]
    Empty,
    /// An item that is no extent.
    #[error("item {number}, \"{item}\", is not LBA or LBA+COUNT with a count of at least 1; nothing was changed")]
    Malformed {
        /// Which, from 1 on.
        number: usize,
        /// The item.
        item: String,
    },
    /// An extent that is not on the bdev.
    #[error(
        "item {number}, \"{lba}+{blocks}\", is not all on the bdev, which has {base_blocks} blocks; nothing was changed"
    )]
    Beyond {
        /// Which, from 1 on.
        number: usize,
        /// Its first block.
        lba: u64,
        /// Its length.
        blocks: u64,
        /// The size of the bdev.
        base_blocks: u64,
    },
}

impl ExtentList {
    /// The blocks that are listed, each once.
    ///
    /// # Errors
    /// [`ListError::Beyond`]: some are not among the first `base_blocks` blocks.
    pub fn on_base(self, base_blocks: u64) -> Result<Ranges, ListError> {
        let is_beyond = |one: &Extent| one.lba.0.checked_add(one.blocks).is_none_or(|end| end > base_blocks);
        match self.0.iter().position(is_beyond) {
            None => Ok(Ranges::new(self.0)),
            Some(at) => {
                let Extent { lba, blocks } = self.0[at];
                Err(ListError::Beyond { number: at + 1, lba: lba.0, blocks, base_blocks })
            }
        }
    }

    fn of(extents: Vec<Extent>) -> Result<ExtentList, ListError> {
        if extents.is_empty() {
            return Err(ListError::Empty);
        }
        match extents.iter().position(|extent| extent.blocks == 0) {
            None => Ok(ExtentList(extents)),
            Some(at) => Err(ListError::Malformed { number: at + 1, item: format!("{}+0", extents[at].lba.0) }),
        }
    }
}

/// `LBA` or `LBA+COUNT`, decimal.
fn extent(item: &str) -> Option<Extent> {
    // A number of Rust may have a sign.
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let (lba, blocks) = item.split_once('+').unwrap_or((item, "1"));
    Some(Extent::new(BaseLba(number(lba)?), number(blocks)?))
}

impl FromStr for ExtentList {
    type Err = ListError;

    fn from_str(text: &str) -> Result<ExtentList, ListError> {
        if text.trim().is_empty() {
            return Err(ListError::Empty);
        }
        let items = (1..).zip(text.split(',').map(str::trim));
        let extents = items.map(|(number, item)| {
            let malformed = || ListError::Malformed { number, item: item.chars().take(40).collect() };
            extent(item).ok_or_else(malformed)
        });
        ExtentList::of(extents.collect::<Result<_, _>>()?)
    }
}

impl<'de> Deserialize<'de> for ExtentList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExtentList, D::Error> {
        deserializer.deserialize_any(Listed)
    }
}

struct Listed;

/// An item of an array.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    lba: BaseLba,
    num_blocks: u64,
}

impl<'de> Visitor<'de> for Listed {
    type Value = ExtentList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string such as \"4096+8,8200\", or an array of lba and num_blocks")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ExtentList, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ExtentList, A::Error> {
        let mut extents = Vec::new();
        while let Some(Item { lba, num_blocks }) = items.next_element()? {
            extents.push(Extent::new(lba, num_blocks));
        }
        ExtentList::of(extents).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn list(value: Value) -> Result<ExtentList, String> {
        from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_string_and_an_array_say_the_same() {
        let extents = [(4096, 8), (8200, 1), (0, 3)].map(|(lba, blocks)| Extent::new(BaseLba(lba), blocks));
        let expected = Ok(ExtentList(extents.to_vec()));
        assert_eq!(list(json!("4096+8, 8200,0+3\n")), expected);
        let items = extents.map(|one| json!({ "lba": one.lba, "num_blocks": one.blocks }));
        assert_eq!(list(json!(items)), expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (item, wrong) in [
            ("1,2+x", "item 2, \"2+x\","),
            ("1,,2", "item 2, \"\","),
            ("1,2,", "item 3, \"\","),
            ("-1", "item 1, \"-1\","),
            ("1++2", "item 1, \"1++2\","),
            ("1+0", "item 1, \"1+0\","),
            ("0x10", "item 1, \"0x10\","),
            ("1,18446744073709551616", "item 2, \"18446744073709551616\","),
            ("", "no extent"),
            (" ", "no extent"),
        ] {
            let error = list(json!(item)).unwrap_err();
            assert!(error.contains(wrong) && error.contains("nothing was changed"), "{item}: {error}");
        }
        assert!(list(json!([])).unwrap_err().contains("no extent"));
        assert!(list(json!([{ "lba": 1, "num_blocks": 0 }])).unwrap_err().contains("item 1, \"1+0\""));
        assert!(list(json!([{ "lba": 1, "num_blocks": 1, "spare": 3 }])).unwrap_err().contains("spare"));
        assert!(list(json!(7)).unwrap_err().contains("4096+8,8200"));
    }

    #[test]
    fn what_is_beyond_the_end_is_named_as_it_was_listed() {
        let listed = |text: &str| text.parse::<ExtentList>().unwrap().on_base(100);
        assert_eq!(listed("90+10,0").unwrap().blocks(), 11);
        for (text, number, lba, blocks) in
            [("7,90+11,99", 2, 90, 11), ("100", 1, 100, 1), ("18446744073709551615+2", 1, u64::MAX, 2)]
        {
            assert_eq!(listed(text), Err(ListError::Beyond { number, lba, blocks, base_blocks: 100 }));
        }
    }
}
