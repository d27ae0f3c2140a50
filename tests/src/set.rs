//! A set of files with many remapped blocks, copied, damaged and loaded again and again in one running target.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    config::Config,
    nvme_tcp::Status,
    rpc::RpcError,
    scene::{BASE_UUID, SPARE_UUID, Scene, Stack, fault_every, stamped},
    spare_format::{SpareFile, field},
    target::Target,
};

/// The mapping, as `bdev_remap_list` has it.
pub type List = Value;

/// Base and spare of a set that is not loaded, and a target to load it in.
pub struct Set {
    /// The running target; no bdev of the set is in it.
    pub target: Target,
    /// The files.
    pub base: PathBuf,
    /// See `base`.
    pub spare: PathBuf,
    /// The mapping.
    pub list: List,
    /// The mapping before the last commit.
    pub list_before_last: List,
    /// The epoch on the spare.
    pub epoch: u64,
    good: [Vec<u8>; 2],
}

/// What came of an attempt to load the set.
pub enum Loaded {
    /// It is there: its status and its mapping.
    Yes(Value, List),
    /// Code and sentence.
    Refused(i64, String),
}

impl Set {
    /// A set with a checkpoint of several pages and some commits behind it, which the superblocks have not noted. `examine` says
    /// whether the target assembles sets by itself, or only on `bdev_remap_create`.
    #[track_caller]
    pub fn make(examine: bool) -> Set {
        let bad = [fault_every(2, 0, 1600, "write", "write_fault"), fault_every(2, 1900, 40, "write", "write_fault")];
        let mut scene = Scene::of(Stack { base_mib: 8, spare_mib: 8, ..Stack::default() }, &bad);
        let mut host = scene.host();
        for lba in (0..1600).step_by(32) {
            assert_eq!(host.write(lba, &stamped(lba, 32, 1)).expect("an answer"), Status::SUCCESS);
        }
        scene.target.rpc("bdev_remap_save", json!({ "name": "Remap0" }));
        let list = |scene: &Scene| scene.target.rpc("bdev_remap_list", json!({ "name": "Remap0", "max": 100_000 }));
        let mut list_before_last = Value::Null;
        for lba in [1900, 1902, 1904] {
            list_before_last = list(&scene);
            assert_eq!(host.write(lba, &stamped(lba, 1, 1)).expect("an answer"), Status::SUCCESS);
        }
        let list = list(&scene);
        scene.target.kill9();
        let Scene { mut target, base, spare, .. } = scene;
        // They may have, on a slow machine: then they say again what they said after the save.
        let (file, log) = (SpareFile::open(&spare), SpareFile::open(&spare).log());
        let saved = log.last - (log.pages - log.checkpoint);
        file.forge_superblocks(|bytes| {
            bytes[field::COMMITTED..][..8].copy_from_slice(&saved.to_le_bytes());
            // As after a clean close, so that loading alone writes nothing.
            bytes[field::IN_USE..][..4].fill(0);
        });
        let good = [&base, &spare].map(|file| fs::read(file).expect("a file"));
        target.start(&Config::new().bdev("bdev_set_options", json!({ "bdev_auto_examine": examine })));
        let epoch = SpareFile::open(&spare).epoch;
        Set { target, base, spare, list, list_before_last, epoch, good }
    }

    /// Puts the files back as they were.
    pub fn mend(&self) {
        for (file, good) in [&self.base, &self.spare].into_iter().zip(&self.good) {
            fs::write(file, good).expect("a file");
        }
    }

    /// The spare, to be damaged.
    pub fn spare_file(&self) -> SpareFile {
        SpareFile::open(&self.spare)
    }

    /// Makes the bdevs on the two files, loads the set, looks at it.
    pub fn load(&self) -> Loaded {
        self.load_with(4096, BASE_UUID, json!({}))
    }

    /// As [`Set::load`], with another block size, base UUID, or further parameters of `bdev_remap_create`.
    pub fn load_with(&self, block_size: u32, base_uuid: &str, more: Value) -> Loaded {
        for (name, file, uuid) in [("Spare0", &self.spare, SPARE_UUID), ("Base0", &self.base, base_uuid)] {
            let params = json!({ "name": name, "filename": file, "block_size": block_size, "uuid": uuid });
            self.target.rpc("bdev_aio_create", params);
        }
        // The same UUID as under the set that was made.
        self.target.rpc("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }));
        let mut create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
        if let (Some(create), Some(more)) = (create.as_object_mut(), more.as_object()) {
            create.extend(more.clone());
        }
        match self.target.call("bdev_remap_create", create) {
            Ok(_) => Loaded::Yes(self.target.status("Remap0"), self.now()),
            Err(RpcError::Answer { code, message }) => Loaded::Refused(code, message),
            Err(error) => panic!("bdev_remap_create: {error}"),
        }
    }

    /// The mapping now.
    pub fn now(&self) -> List {
        self.target.rpc("bdev_remap_list", json!({ "name": "Remap0", "max": 100_000 }))
    }

    /// Removes all of the set's bdevs.
    pub fn unload(&self) {
        if self.target.has_bdev("Remap0") {
            self.target.rpc("bdev_remap_delete", json!({ "name": "Remap0" }));
        }
        self.target.rpc("bdev_fault_delete", json!({ "name": "Fault0" }));
        for name in ["Base0", "Spare0"] {
            self.target.rpc("bdev_aio_delete", json!({ "name": name }));
        }
    }

    /// Loads the set, which must be refused, with both files left as they were, byte for byte; yields code and sentence.
    #[track_caller]
    pub fn refused(&self, what: &str, block_size: u32, base_uuid: &str, more: Value) -> (i64, String) {
        let files = || [&self.base, &self.spare].map(|file| fs::read(file).expect("a file"));
        let before = files();
        let loaded = self.load_with(block_size, base_uuid, more);
        let exists = self.target.has_bdev("Remap0");
        self.unload();
        let Loaded::Refused(code, message) = loaded else { panic!("{what}: not refused") };
        assert!(code < 0 && !exists, "{what}: {message} ({code})");
        assert!(files() == before, "{what}: refused, but a file was changed: {message}");
        (code, message)
    }
}
