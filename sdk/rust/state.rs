//! Keys with values that survive the function.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::{Code, Error, Result};
use super::json::Json;
use super::pubsub::NewEvent;
use super::{api, host, milliseconds};

/// StateStore is a component of the state capability.
#[derive(Clone, Debug)]
pub struct StateStore(String);

/// The component of that name; "" is the default one.
pub fn state(component: &str) -> StateStore {
    StateStore(component.to_string())
}

/// Item is one key with what is stored under it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    pub key: String,
    pub value: Vec<u8>,
    /// Changes with each write; empty: the key is not there.
    pub etag: String,
    /// None: never.
    pub expires: Option<SystemTime>,
}

impl Item {
    /// Whether the key is there.
    pub fn exists(&self) -> bool {
        !self.etag.is_empty()
    }

    /// The value as JSON.
    pub fn json(&self) -> Result<Json> {
        Json::parse(&self.value)
            .ok_or_else(|| Error::new(Code::InvalidArgument, format!("state {:?} is not the JSON expected", self.key)))
    }

    fn from_api(i: api::StateItem) -> Item {
        let ms = u64::try_from(i.expires_unix_ms).unwrap_or(0);
        let expires = if ms == 0 { None } else { Some(UNIX_EPOCH + Duration::from_millis(ms)) };
        Item { key: i.key, value: i.value, etag: i.etag, expires }
    }
}

/// If is what a write asks of the key as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum If {
    /// Nothing.
    Any,
    /// It has the ETag that was read; the ETag of an item that was not there, "", stands for Absent.
    Match(String),
    /// It is not there.
    Absent,
}

impl StateStore {
    /// The item of key; one that is not there is NotFound.
    pub fn get(&self, key: &str) -> Result<Item> {
        let item = self.get_many(&[key])?.remove(0);
        if !item.exists() {
            return Err(Error::new(Code::NotFound, format!("state {key:?} is not there")));
        }
        Ok(item)
    }

    /// One item for each key, in that order; those that are not there have no ETag.
    pub fn get_many(&self, keys: &[&str]) -> Result<Vec<Item>> {
        let keys: Vec<String> = keys.iter().map(|k| k.to_string()).collect();
        let n = keys.len();
        let r: api::StateGetResponse = host::invoke("state.Get", &api::StateGetRequest { component: self.0.clone(), keys })?;
        if r.items.len() != n {
            return Err(Error::new(Code::Internal, format!("state.Get: {} items for {n} keys", r.items.len())));
        }
        Ok(r.items.into_iter().map(Item::from_api).collect())
    }

    /// At most limit items whose key begins with prefix and is greater than after, in byte order; limit 0 leaves the
    /// number to the host. The last key is the next call's after.
    pub fn list(&self, prefix: &str, after: &str, limit: u32) -> Result<Vec<Item>> {
        let request = api::StateListRequest {
            component: self.0.clone(),
            prefix: prefix.to_string(),
            after: after.to_string(),
            limit,
        };
        let r: api::StateListResponse = host::invoke("state.List", &request)?;
        Ok(r.items.into_iter().map(Item::from_api).collect())
    }

    /// Stores value under key and returns its new ETag.
    pub fn put(&self, key: &str, value: impl Into<Vec<u8>>, condition: If) -> Result<String> {
        let mut tx = self.begin();
        tx.put(key, value, condition);
        Ok(tx.apply()?.etags.pop().unwrap_or_default())
    }

    /// Removes key; one that is not there is no error.
    pub fn delete(&self, key: &str, condition: If) -> Result<()> {
        let mut tx = self.begin();
        tx.delete(key, condition);
        tx.commit()
    }

    /// Starts a transaction.
    pub fn begin(&self) -> Tx {
        Tx { request: api::StateApplyRequest { component: self.0.clone(), ..Default::default() } }
    }
}

/// Tx collects writes and events. Nothing happens before commit, and then all of it or nothing.
#[derive(Debug)]
pub struct Tx {
    request: api::StateApplyRequest,
}

impl Tx {
    /// Stores value under key.
    pub fn put(&mut self, key: &str, value: impl Into<Vec<u8>>, condition: If) -> &mut Tx {
        self.add(api::StateOp { key: key.to_string(), value: value.into(), ..Default::default() }, condition)
    }

    /// Lets what the last put stores disappear after a time, which is rounded up to a millisecond.
    pub fn ttl(&mut self, ttl: Duration) -> &mut Tx {
        if let Some(op) = self.request.ops.last_mut() {
            op.ttl_ms = milliseconds(ttl);
        }
        self
    }

    /// Removes key.
    pub fn delete(&mut self, key: &str, condition: If) -> &mut Tx {
        self.add(api::StateOp { delete: true, key: key.to_string(), ..Default::default() }, condition)
    }

    /// Publishes an event with the commit.
    pub fn publish(&mut self, event: NewEvent) -> &mut Tx {
        self.request.events.push(event.into_api());
        self
    }

    /// Does everything collected, durably once it returns Ok. With an error that is_conflict nothing was done: begin
    /// again from what is there now.
    pub fn commit(self) -> Result<()> {
        self.apply().map(|_| ())
    }

    fn apply(self) -> Result<api::StateApplyResponse> {
        if self.request.ops.is_empty() && self.request.events.is_empty() {
            return Ok(Default::default());
        }
        host::invoke("state.Apply", &self.request)
    }

    fn add(&mut self, mut op: api::StateOp, condition: If) -> &mut Tx {
        match condition {
            If::Match(etag) if !etag.is_empty() => op.if_match = etag,
            If::Any => {}
            _ => op.if_absent = true,
        }
        self.request.ops.push(op);
        self
    }
}
