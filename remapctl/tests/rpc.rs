//! What becomes of a call when there is no target, or something that behaves like none. What real targets answer is tested end to end.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use common::{Done, Folder, remapctl};
use remap_core::{BaseLba, ListedExtent, ListedState, SpareLba};
use remapctl::rpc::{Client, Failure};

/// Somebody who listens at a socket, and answers the calls one after the other by these functions; then nobody does any more.
fn peer<A: FnMut(&mut UnixStream) + Send + 'static>(folder: &Folder, answers: Vec<A>) -> PathBuf {
    let path = folder.path("peer.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for mut answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            answer(&mut stream);
        }
    });
    path
}

/// The one call of `sets` is answered with these bytes.
fn answered(bytes: &[u8]) -> String {
    let folder = Folder::new();
    let bytes = bytes.to_vec();
    let socket = peer(&folder, vec![move |stream: &mut UnixStream| _ = stream.write_all(&bytes)]);
    let failure = Client::new(&socket, Duration::from_secs(60)).sets().unwrap_err().to_string();
    assert!(failure.contains("bdev_remap_status") && failure.contains("peer.sock"), "{failure}");
    failure
}

#[test]
fn without_a_target_the_sentence_names_the_socket_and_what_to_do() {
    let folder = Folder::new();
    let socket = folder.path("nobody.sock");
    let client = Client::new(&socket, Duration::from_secs(1));
    let sentence = client.sets().unwrap_err().to_string();
    assert!(
        sentence.contains("nobody.sock: no SPDK target listens there") && sentence.contains("--socket"),
        "{sentence}"
    );
    // Its process has died.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(matches!(client.sets(), Err(Failure::NoTarget { .. })));
    // A file, and a name that is none for a socket.
    assert!(matches!(
        Client::new(&folder.file("file", b"x"), Duration::from_secs(1)).sets(),
        Err(Failure::NoTarget { .. })
    ));
    let long = folder.path(&"x".repeat(300));
    assert!(matches!(Client::new(&long, Duration::from_secs(1)).sets(), Err(Failure::NoTarget { .. })));
}

#[test]
fn what_is_no_answer_is_an_error_that_says_so() {
    let garbage: [&[u8]; 6] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xfe\0\0",
        b"{}",
        br#"{"jsonrpc":"2.0","id":1,"result":{"name":7}}"#,
        br#"{"jsonrpc":"2.0","id":1,"result":[{"name":"x","state":"online"}]}"#,
        br#"{"jsonrpc":"2.0","id":1,"error":{"code":"x"}}"#,
    ];
    for bytes in garbage {
        let sentence = answered(bytes);
        assert!(sentence.contains("the answer cannot be understood"), "{sentence}");
    }
    let nested = [br#"{"result":"#.to_vec(), b"[".repeat(1 << 20)].concat();
    assert!(answered(&nested).contains("recursion limit"));
    assert!(answered(br#"{"jsonrpc":"2.0","id":1,"result":[{"na"#).contains("closed the connection"));
    assert!(answered(b"").contains("closed the connection"));
    assert!(answered(&b" ".repeat(33 << 20)).contains("the answer has more than 32 MiB"));
    let unknown = answered(br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}"#);
    assert!(unknown.contains("load bdev_remap into it"), "{unknown}");
    let refused = answered(br#"{"jsonrpc":"2.0","id":1,"error":{"code":-19,"message":"name: there is no such set"}}"#);
    assert!(refused.contains("name: there is no such set (-19)"), "{refused}");
}

#[test]
fn a_target_that_hangs_or_never_ends_its_answer_is_given_up() {
    let folder = Folder::new();
    // It keeps the connection open: until the client has gone, if it does not send.
    let silent = |stream: &mut UnixStream| _ = stream.read(&mut [0]);
    let socket = peer(&folder, vec![silent]);
    let began = Instant::now();
    let failure = Client::new(&socket, Duration::from_millis(100)).sets().unwrap_err();
    assert!(matches!(failure, Failure::Slow { .. }) && began.elapsed() < Duration::from_secs(30), "{failure}");

    // A byte now and then is no progress.
    let drips = |stream: &mut UnixStream| while stream.write_all(b" ").is_ok() {};
    let socket = peer(&folder, vec![drips]);
    let failure = Client::new(&socket, Duration::from_millis(200)).sets().unwrap_err();
    assert!(matches!(failure, Failure::Slow { .. } | Failure::Gone { .. }), "{failure}");
}

/// What a list comes to whose pages are these results.
fn listed(pages: &[&str]) -> Vec<Result<ListedExtent, Failure>> {
    let folder = Folder::new();
    let pages = pages.iter().map(|page| {
        let answer = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{page}}}"#);
        move |stream: &mut UnixStream| stream.write_all(answer.as_bytes()).unwrap()
    });
    let client = Client::new(&peer(&folder, pages.collect()), Duration::from_secs(60));
    client.extents("Remap0").collect()
}

#[test]
fn pages_of_a_list_are_joined_and_none_leads_in_circles() {
    let joined = listed(&[
        r#"{"extents":[{"lba":1,"num_blocks":2,"spare_lba":100,"state":"remapped"}],"next":3}"#,
        r#"{"extents":[{"lba":3,"num_blocks":1,"spare_lba":102,"state":"remapped"},
                       {"lba":9,"num_blocks":4,"spare_lba":null,"state":"pending"}]}"#,
    ]);
    let extent = |lba, num_blocks, spare_lba: Option<u64>, state| ListedExtent {
        lba: BaseLba(lba),
        num_blocks,
        spare_lba: spare_lba.map(SpareLba),
        state,
    };
    let expected = [extent(1, 3, Some(100), ListedState::Remapped), extent(9, 4, None, ListedState::Pending)];
    assert_eq!(joined.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected);

    for page in [
        r#"{"extents":[],"next":0}"#,
        r#"{"extents":[],"next":7}"#,
        r#"{"extents":[{"lba":5,"num_blocks":2,"spare_lba":null,"state":"pending"}],"next":6}"#,
        r#"{"extents":[{"lba":5,"num_blocks":0,"spare_lba":null,"state":"pending"}]}"#,
        r#"{"extents":[{"lba":18446744073709551615,"num_blocks":2,"spare_lba":null,"state":"pending"}]}"#,
    ] {
        let listed = listed(&[page]);
        assert!(matches!(listed[..], [Err(Failure::Malformed { .. })]), "{page}: {listed:?}");
    }
}

#[test]
fn a_list_that_breaks_off_has_no_end() {
    let set = r#"[{"name":"Remap0","uuid":"00000000-0000-0000-0000-000000000001","state":"online","base_bdev":"Base0",
        "storm_limit":1,"spare":{"total":9,"used":1,"free":8,"bad":0},"remapped":1,"pending":0,"lost":0,"epoch":1,"sequence":1,
        "metadata":{"superblock_a":"ok","superblock_b":"ok","log_a":"ok","log_b":"ok"}}]"#;
    let bdev = r#"[{"uuid":"00000000-0000-0000-0000-000000000001","block_size":4096,"num_blocks":1000}]"#;
    let page = r#"{"extents":[{"lba":1,"num_blocks":2,"spare_lba":100,"state":"remapped"},
        {"lba":7,"num_blocks":1,"spare_lba":200,"state":"remapped"}],"next":8}"#;
    for (format, last) in [("json", "]}"), ("ddrescue", "+"), ("csv", "7,1,200,remapped"), ("badblocks", "7")] {
        let folder = Folder::new();
        let answers = [set, bdev, bdev, page].map(|result| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
        let answers = answers.into_iter().chain([String::new()]);
        let answer = |text: String| move |stream: &mut UnixStream| stream.write_all(text.as_bytes()).unwrap();
        let socket = peer(&folder, answers.map(answer).collect());
        let args = ["list", "Remap0", "--format", format, "-s", socket.to_str().unwrap()];
        let done = Done::of(remapctl(args).current_dir(folder.path("")).output().unwrap());
        assert!(done.code == 8 && done.err.contains("bdev_remap_list"), "{format}: {}", done.err);
        let ended = done.out.trim_end().ends_with(last);
        assert_eq!(ended, matches!(format, "csv" | "badblocks"), "{format}: {}", done.out);
        assert!(!serde_json::from_str::<serde_json::Value>(&done.out).is_ok_and(|all| all.is_object()), "{}", done.out);
    }
}
