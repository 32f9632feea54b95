//! Objects under names such as reports/2026/11.pdf.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::calls::{attributes, pairs};
use super::error::Result;
use super::{api, host};

/// FileStore is a component of the file capability.
#[derive(Clone, Debug)]
pub struct FileStore(String);

/// The component of that name; "" is the default one.
pub fn file(component: &str) -> FileStore {
    FileStore(component.to_string())
}

/// FileInfo is what is known of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct FileInfo {
    pub name: String,
    /// In bytes, of the whole object.
    pub size: i64,
    pub etag: String,
    pub modified: SystemTime,
    /// Not in a list, as is metadata.
    pub content_type: String,
    /// Names are in lower case.
    pub metadata: Vec<(String, String)>,
}

/// FileQuery says what to list.
#[derive(Clone, Debug, Default)]
pub struct FileQuery {
    pub prefix: String,
    /// "/": names that go on after it are one entry of FileList::prefixes.
    pub delimiter: String,
    /// Only what comes after that name.
    pub after: String,
    /// Of files and prefixes together; 0: 1000, the most.
    pub limit: u32,
}

/// FileList is one page of names, in byte order.
#[derive(Clone, Debug)]
pub struct FileList {
    pub files: Vec<FileInfo>,
    pub prefixes: Vec<String>,
    /// The next page's after; empty: this is the last.
    pub next: String,
}

fn modified(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

impl FileStore {
    /// Stores data under name, whole or not at all, and returns its ETag. A call takes up to 16 MiB: what is larger is
    /// appended piece by piece.
    pub fn put(
        &self,
        name: &str,
        content_type: &str,
        metadata: &[(&str, &str)],
        data: impl Into<Vec<u8>>,
    ) -> Result<String> {
        let request = api::FilePutRequest {
            component: self.0.clone(),
            name: name.to_string(),
            content_type: content_type.to_string(),
            metadata: attributes(metadata),
            data: data.into(),
        };
        host::invoke::<api::FilePutResponse>("file.Put", &request).map(|r| r.etag)
    }

    /// Adds to the end of an object, which must be at offset, and returns where the end is then; offset 0 makes a new
    /// one. FailedPrecondition: the end is elsewhere.
    pub fn append(&self, name: &str, offset: i64, data: impl Into<Vec<u8>>) -> Result<i64> {
        let request = api::FileAppendRequest {
            component: self.0.clone(),
            name: name.to_string(),
            offset,
            data: data.into(),
            ..Default::default()
        };
        host::invoke::<api::FileAppendResponse>("file.Append", &request).map(|r| r.size)
    }

    /// An object of up to 16 MiB. NotFound: there is none.
    pub fn get(&self, name: &str) -> Result<(Vec<u8>, FileInfo)> {
        self.get_range(name, 0, 0)
    }

    /// length bytes from offset on, or fewer where it ends before; a length of 0 means to its end. OutOfRange: offset is
    /// past it.
    pub fn get_range(&self, name: &str, offset: i64, length: i64) -> Result<(Vec<u8>, FileInfo)> {
        let request = api::FileGetRequest { component: self.0.clone(), name: name.to_string(), offset, length };
        let r: api::FileGetResponse = host::invoke("file.Get", &request)?;
        let info = FileInfo {
            name: name.to_string(),
            size: r.size,
            etag: r.etag,
            modified: modified(r.modified_unix_ms),
            content_type: r.content_type,
            metadata: pairs(r.metadata),
        };
        Ok((r.data, info))
    }

    /// What an object is. NotFound: there is none.
    pub fn stat(&self, name: &str) -> Result<FileInfo> {
        let request = api::FileStatRequest { component: self.0.clone(), name: name.to_string() };
        let r: api::FileStatResponse = host::invoke("file.Stat", &request)?;
        Ok(FileInfo {
            name: name.to_string(),
            size: r.size,
            etag: r.etag,
            modified: modified(r.modified_unix_ms),
            content_type: r.content_type,
            metadata: pairs(r.metadata),
        })
    }

    /// What there is under names. It needs a grant for all that begins with the prefix.
    pub fn list(&self, query: FileQuery) -> Result<FileList> {
        let request = api::FileListRequest {
            component: self.0.clone(),
            prefix: query.prefix,
            delimiter: query.delimiter,
            after: query.after,
            limit: query.limit,
        };
        let r: api::FileListResponse = host::invoke("file.List", &request)?;
        let files = r.items.into_iter().map(|i| FileInfo {
            name: i.name,
            size: i.size,
            etag: i.etag,
            modified: modified(i.modified_unix_ms),
            content_type: String::new(),
            metadata: Vec::new(),
        });
        Ok(FileList { files: files.collect(), prefixes: r.prefixes, next: r.next })
    }

    /// Removes an object. NotFound: there is none.
    pub fn delete(&self, name: &str) -> Result<()> {
        let request = api::FileDeleteRequest { component: self.0.clone(), name: name.to_string() };
        host::invoke::<api::Empty>("file.Delete", &request).map(|_| ())
    }
}
