//! A client of SPDK's JSON-RPC over its Unix socket: one call, one connection, one answer.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

/// What a call did not succeed with.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The application answered with an error.
    #[error("{message} ({code})")]
    Answer {
        /// JSON-RPC error code, or a negative errno.
        code: i64,
        /// The sentence.
        message: String,
    },
    /// No answer: the socket is not there, or the application went away.
    #[error("no answer: {0}")]
    Io(#[from] std::io::Error),
    /// Something that is no JSON-RPC answer.
    #[error("not an answer: {0}")]
    Malformed(String),
}

impl RpcError {
    /// The error's code; 0 if there was no answer.
    pub fn code(&self) -> i64 {
        if let RpcError::Answer { code, .. } = self { *code } else { 0 }
    }
}

/// Calls `method` on the application that listens at `socket`; waits at most `limit` for the answer.
pub fn call(socket: &Path, method: &str, params: Value, limit: Duration) -> Result<Value, RpcError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    let mut request = json!({ "jsonrpc": "2.0", "id": 1, "method": method });
    if !params.is_null() {
        request["params"] = params;
    }
    stream.write_all(request.to_string().as_bytes())?;

    let mut text = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Err(RpcError::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
        text.extend_from_slice(&chunk[..n]);
        match serde_json::from_slice::<Value>(&text) {
            Ok(answer) => return result_of(answer),
            Err(error) if error.is_eof() => {}
            Err(error) => return Err(RpcError::Malformed(error.to_string())),
        }
    }
}

fn result_of(mut answer: Value) -> Result<Value, RpcError> {
    if let Some(error) = answer.get("error") {
        let code = error["code"].as_i64().unwrap_or_default();
        return Err(RpcError::Answer { code, message: error["message"].as_str().unwrap_or_default().to_owned() });
    }
    match answer.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(RpcError::Malformed(answer.to_string())),
    }
}
