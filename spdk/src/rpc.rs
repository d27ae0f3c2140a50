//! JSON-RPC methods as serde types.

use std::{
    ffi::{CStr, CString},
    future::Future,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use spdk_sys as sys;

use crate::{Errno, json, logger::c_string, thread};

/// A method of SPDK's JSON-RPC server, allowed at runtime (after the framework has started).
pub trait Method: 'static {
    /// Its name.
    const NAME: &'static CStr;
    /// Its parameters. Let them deny unknown fields.
    type Params: DeserializeOwned;
    /// Its result.
    type Reply: Serialize;
    /// Carries it out, on the app thread.
    fn call(params: Self::Params) -> impl Future<Output = Result<Self::Reply, Error>>;
}

/// An error for the caller: a code (a negative errno, or -32602) and a sentence.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Code of the JSON-RPC error.
    pub code: i32,
    /// What was wrong, what was left untouched, what to do.
    pub message: String,
}

impl Error {
    /// An error with a negative errno as its code.
    pub fn new(errno: Errno, message: impl Into<String>) -> Error {
        Error { code: errno.negative(), message: message.into() }
    }

    /// A wrong parameter (-32602): `name` says which.
    pub fn invalid(name: &str, why: impl std::fmt::Display) -> Error {
        Error { code: sys::SPDK_JSONRPC_ERROR_INVALID_PARAMS, message: format!("{name}: {why}") }
    }
}

/// Makes `M` known to the RPC server. To be called before main, once.
pub fn register<M: Method>() {
    // SAFETY: the name is 'static; the handler fits SPDK's type.
    unsafe { sys::spdk_rpc_register_method(M::NAME.as_ptr(), Some(handle::<M>), sys::SPDK_RPC_RUNTIME) };
}

/// # Safety
/// SPDK passes a request that is answered once, and its parsed parameters or NULL, which live until this returns.
unsafe extern "C" fn handle<M: Method>(request: *mut sys::spdk_jsonrpc_request, params: *const sys::spdk_json_val) {
    let request = Request(request);
    // SAFETY: the caller vouches for the parameters.
    match unsafe { json::read(params) }.and_then(decode::<M::Params>) {
        Ok(params) => thread::spawn(async move { request.answer(M::call(params).await) }),
        Err(message) => {
            request.answer::<()>(Err(Error { code: sys::SPDK_JSONRPC_ERROR_INVALID_PARAMS, message }));
        }
    }
}

/// The parameters as `P`; an error names the parameter.
fn decode<P: DeserializeOwned>(params: Option<Value>) -> Result<P, String> {
    let params = params.unwrap_or_else(|| Value::Object(Map::new()));
    serde_path_to_error::deserialize(params).map_err(|error| {
        let path = error.path().to_string();
        if path == "." { error.inner().to_string() } else { format!("{path}: {}", error.inner()) }
    })
}

/// A request that is answered exactly once, on the app thread.
struct Request(*mut sys::spdk_jsonrpc_request);

impl Request {
    fn answer<R: Serialize>(self, reply: Result<R, Error>) {
        let reply = reply.and_then(|reply| {
            serde_json::to_value(reply)
                .map_err(|error| Error { code: sys::SPDK_JSONRPC_ERROR_INTERNAL_ERROR, message: error.to_string() })
        });
        // SAFETY: the request is live until it is answered, and consumed here.
        unsafe {
            match reply {
                Ok(value) => {
                    let w = sys::spdk_jsonrpc_begin_result(self.0);
                    json::write_value(w, &value);
                    sys::spdk_jsonrpc_end_result(self.0, w);
                }
                Err(error) => {
                    let message: CString = c_string(&error.message);
                    sys::spdk_jsonrpc_send_error_response(self.0, error.code, message.as_ptr());
                }
            }
        }
    }
}
