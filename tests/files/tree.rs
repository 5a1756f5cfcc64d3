//! Everything about the files below a folder, to be compared.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use backup_core::Digester;

/// What is below a folder, by the path in it.
#[derive(PartialEq, Eq, Clone)]
pub struct Tree(BTreeMap<Vec<u8>, About>);

#[derive(PartialEq, Eq, Clone, Debug)]
struct About {
    mode: u32,
    owner: (u32, u32),
    /// Not of folders: what is made in them changes it.
    mtime: Option<(i64, i64)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Digest of a file, target of a link.
    content: String,
}

impl Tree {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn without(&self, path: &str) -> Self {
        let mut tree = self.clone();
        assert!(tree.0.remove(path.as_bytes()).is_some(), "there is no {path}");
        tree
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (path, about) in &self.0 {
            writeln!(f, "\n{:?} {about:?}", String::from_utf8_lossy(path))?;
        }
        Ok(())
    }
}

/// Looks at everything below a folder, and at the folder itself.
pub fn snapshot(folder: &Path) -> Tree {
    let mut tree = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        if kind.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let about = About {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: (!kind.is_dir()).then(|| (metadata.mtime(), metadata.mtime_nsec())),
            xattrs: if kind.is_symlink() { BTreeMap::new() } else { xattrs(&path) },
            content: match kind {
                kind if kind.is_symlink() => format!("{:?}", std::fs::read_link(&path).unwrap()),
                kind if kind.is_file() => digest(&path),
                _ => String::new(),
            },
        };
        let name = path.strip_prefix(folder).unwrap().as_os_str().as_bytes().to_vec();
        tree.insert(name, about);
    }
    Tree(tree)
}

fn digest(path: &Path) -> String {
    use std::io::Read;
    let mut digester = Digester::default();
    let mut file = std::fs::File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return digester.finish().sha256,
            n => digester.update(&buffer[..n]),
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let n = rustix::fs::listxattr(path, &mut buffer[..]).unwrap_or(0);
    let names = buffer[..n].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let n = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..n].to_vec())
        })
        .collect()
}
