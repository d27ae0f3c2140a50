//! Between SPDK's JSON and serde's: tokens in, values out.

use std::{ffi::c_void, slice};

use serde_json::{Map, Number, Value};
use spdk_sys as sys;

use crate::logger::c_string;

/// The value that SPDK's tokens stand for; an error says what is wrong with it.
///
/// # Safety
/// `tokens` is NULL or points to a whole value as spdk_json_parse leaves it.
pub(crate) unsafe fn read(tokens: *const sys::spdk_json_val) -> Result<Option<Value>, String> {
    if tokens.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller vouches for a whole value: `len` of an opening token counts the tokens up to its closing one.
    let tokens = unsafe {
        let count = if is_container(&*tokens) { (*tokens).len as usize + 2 } else { 1 };
        slice::from_raw_parts(tokens, count)
    };
    Reader { tokens: tokens.iter() }.value().map(Some)
}

fn is_container(token: &sys::spdk_json_val) -> bool {
    matches!(token.type_, sys::SPDK_JSON_VAL_ARRAY_BEGIN | sys::SPDK_JSON_VAL_OBJECT_BEGIN)
}

struct Reader<'a> {
    tokens: slice::Iter<'a, sys::spdk_json_val>,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Value, String> {
        let token = self.tokens.next().ok_or("the value ends too early")?;
        match token.type_ {
            sys::SPDK_JSON_VAL_NULL => Ok(Value::Null),
            sys::SPDK_JSON_VAL_TRUE => Ok(Value::Bool(true)),
            sys::SPDK_JSON_VAL_FALSE => Ok(Value::Bool(false)),
            sys::SPDK_JSON_VAL_NUMBER => {
                let text = text(token)?;
                text.parse::<Number>().map(Value::Number).map_err(|_| format!("{text} is no number"))
            }
            sys::SPDK_JSON_VAL_STRING => Ok(Value::String(text(token)?.to_owned())),
            sys::SPDK_JSON_VAL_ARRAY_BEGIN => {
                let mut items = Vec::new();
                while !self.at_end(sys::SPDK_JSON_VAL_ARRAY_END) {
                    items.push(self.value()?);
                }
                Ok(Value::Array(items))
            }
            sys::SPDK_JSON_VAL_OBJECT_BEGIN => {
                let mut members = Map::new();
                while !self.at_end(sys::SPDK_JSON_VAL_OBJECT_END) {
                    let name = text(self.tokens.next().ok_or("the object ends too early")?)?.to_owned();
                    let value = self.value()?;
                    if members.insert(name.clone(), value).is_some() {
                        return Err(format!("{name} is given twice"));
                    }
                }
                Ok(Value::Object(members))
            }
            other => Err(format!("unexpected token {other}")),
        }
    }

    /// Steps over a closing token.
    fn at_end(&mut self, end: sys::spdk_json_val_type) -> bool {
        match self.tokens.as_slice().first() {
            Some(token) if token.type_ != end => false,
            _ => {
                self.tokens.next();
                true
            }
        }
    }
}

fn text(token: &sys::spdk_json_val) -> Result<&str, String> {
    if token.start.is_null() {
        return Ok("");
    }
    // SAFETY: start and len delimit the token's text, decoded in place by SPDK's parser, which outlives the tokens.
    let bytes = unsafe { slice::from_raw_parts(token.start.cast::<u8>(), token.len as usize) };
    std::str::from_utf8(bytes).map_err(|_| "a string is not UTF-8".into())
}

/// Writes `value` as the next value.
///
/// # Safety
/// `w` is a live writer at a place where a value may stand.
pub(crate) unsafe fn write_value(w: *mut sys::spdk_json_write_ctx, value: &Value) {
    let text = value.to_string();
    // SAFETY: the caller vouches for the writer; the text is one whole JSON value.
    let rc = unsafe { sys::spdk_json_write_val_raw(w, text.as_ptr().cast::<c_void>(), text.len()) };
    if rc != 0 {
        log::error!("a JSON value could not be written: {rc}");
    }
}

/// Writes `value` as a member called `name`.
///
/// # Safety
/// `w` is a live writer inside an object.
pub(crate) unsafe fn write_named(w: *mut sys::spdk_json_write_ctx, name: &str, value: &Value) {
    // SAFETY: the caller vouches for the writer.
    unsafe {
        sys::spdk_json_write_name(w, c_string(name).as_ptr());
        write_value(w, value);
    }
}
