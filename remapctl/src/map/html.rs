//! x
use super::picture::Picture;
use crate::error::Error;
use std::io::Write;
/// x
pub fn write(_picture: &Picture, _out: &mut impl Write) -> Result<(), Error> {
    Ok(())
}
