//! The smaller capabilities: locks, configuration, sequences, secrets, bindings, other functions, hosts outside.

use std::time::Duration;

use super::error::{Code, Error, Result};
use super::{api, host, milliseconds, Header, Outgoing, Response};

/// LockStore is a component of the lock capability: leases with an owner and an end.
#[derive(Clone, Debug)]
pub struct LockStore(String);

/// The component of that name; "" is the default one.
pub fn lock(component: &str) -> LockStore {
    LockStore(component.to_string())
}

impl LockStore {
    /// Takes name for owner until ttl has passed; false where another owner holds it.
    pub fn try_lock(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool> {
        let r: api::LockTryLockResponse = host::invoke(
            "lock.TryLock",
            &api::LockTryLockRequest {
                component: self.0.clone(),
                name: name.to_string(),
                owner: owner.to_string(),
                ttl_ms: milliseconds(ttl),
            },
        )?;
        Ok(r.acquired)
    }

    /// Puts the end of owner's lease ttl from now. NotFound: nobody holds it; PermissionDenied: another owner does.
    pub fn renew(&self, name: &str, owner: &str, ttl: Duration) -> Result<()> {
        host::invoke::<api::Empty>(
            "lock.Renew",
            &api::LockRenewRequest {
                component: self.0.clone(),
                name: name.to_string(),
                owner: owner.to_string(),
                ttl_ms: milliseconds(ttl),
            },
        )
        .map(|_| ())
    }

    /// Gives the lock back, with renew's errors.
    pub fn unlock(&self, name: &str, owner: &str) -> Result<()> {
        host::invoke::<api::Empty>(
            "lock.Unlock",
            &api::LockUnlockRequest { component: self.0.clone(), name: name.to_string(), owner: owner.to_string() },
        )
        .map(|_| ())
    }
}

/// ConfigStore is a component of the config capability.
#[derive(Clone, Debug)]
pub struct ConfigStore(String);

/// The component of that name; "" is the default one.
pub fn config(component: &str) -> ConfigStore {
    ConfigStore(component.to_string())
}

/// ConfigItem is one entry of configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigItem {
    pub key: String,
    pub value: String,
    pub version: String,
}

impl ConfigStore {
    /// The value of key; one that is not there is NotFound.
    pub fn get(&self, key: &str) -> Result<String> {
        match self.get_many(&[key])?.pop() {
            Some(item) => Ok(item.value),
            None => Err(Error::new(Code::NotFound, format!("config {key:?} is not there"))),
        }
    }

    /// The items of those keys that are there; all that are granted where none is named.
    pub fn get_many(&self, keys: &[&str]) -> Result<Vec<ConfigItem>> {
        let keys = keys.iter().map(|k| k.to_string()).collect();
        let r: api::ConfigGetResponse =
            host::invoke("config.Get", &api::ConfigGetRequest { component: self.0.clone(), keys })?;
        Ok(r.items.into_iter().map(|i| ConfigItem { key: i.key, value: i.value, version: i.version }).collect())
    }
}

/// SequenceStore is a component of the sequence capability: numbers that never come twice.
#[derive(Clone, Debug)]
pub struct SequenceStore(String);

/// The component of that name; "" is the default one.
pub fn sequence(component: &str) -> SequenceStore {
    SequenceStore(component.to_string())
}

impl SequenceStore {
    /// The next number of key; the first is 1, and some may be left out.
    pub fn next(&self, key: &str) -> Result<i64> {
        self.next_n(key, 1)
    }

    /// Reserves n numbers and returns the first of them.
    pub fn next_n(&self, key: &str, count: i64) -> Result<i64> {
        let request = api::SequenceNextRequest { component: self.0.clone(), key: key.to_string(), count };
        let r: api::SequenceNextResponse = host::invoke("sequence.Next", &request)?;
        Ok(r.first)
    }
}

/// The secret of that name in a component; "" is the default one. One that is not there is NotFound.
pub fn secret(component: &str, name: &str) -> Result<Vec<u8>> {
    let request = api::SecretGetRequest { component: component.to_string(), name: name.to_string() };
    host::invoke::<api::SecretGetResponse>("secret.Get", &request).map(|r| r.value)
}

/// Asks a binding for an operation of the system behind it; "" is the default component. What data and metadata mean, the
/// component says. What a binding brings by itself, if it is an input, comes to the function as a POST to its route:
/// handle("POST /nightly", …).
pub fn bind(
    component: &str,
    operation: &str,
    data: impl Into<Vec<u8>>,
    metadata: &[(&str, &str)],
) -> Result<(Vec<u8>, Vec<(String, String)>)> {
    let request = api::BindingInvokeRequest {
        component: component.to_string(),
        operation: operation.to_string(),
        data: data.into(),
        metadata: attributes(metadata),
    };
    host::invoke::<api::BindingInvokeResponse>("binding.Invoke", &request).map(|r| (r.data, pairs(r.metadata)))
}

pub(super) fn attributes(all: &[(&str, &str)]) -> Vec<api::Attribute> {
    all.iter().map(|(name, value)| api::Attribute { name: name.to_string(), value: value.to_string() }).collect()
}

pub(super) fn pairs(all: Vec<api::Attribute>) -> Vec<(String, String)> {
    all.into_iter().map(|a| (a.name, a.value)).collect()
}

/// Asks another function, or the app, by name; path may have a query. Whatever it answers is Ok, a 500 too: an error is
/// a call that was not answered.
pub fn invoke(target: &str, path: &str, request: Outgoing) -> Result<Response> {
    let r: api::InvokeCallResponse = host::invoke(
        "invoke.Call",
        &api::InvokeCallRequest {
            target: target.to_string(),
            method: request.method,
            path: path.to_string(),
            headers: request.header.to_api(),
            body: request.body,
            timeout_ms: request.timeout.map_or(0, milliseconds),
        },
    )?;
    Ok(Response { status: r.status as u16, header: Header::from_api(r.headers), body: r.body })
}

/// Sends a request to a host outside that was granted. Redirects are answers like all others.
pub fn fetch(url: &str, request: Outgoing) -> Result<Response> {
    let r: api::HttpSendResponse = host::invoke(
        "http.Send",
        &api::HttpSendRequest {
            method: request.method,
            url: url.to_string(),
            headers: request.header.to_api(),
            body: request.body,
            timeout_ms: request.timeout.map_or(0, milliseconds),
        },
    )?;
    Ok(Response { status: r.status as u16, header: Header::from_api(r.headers), body: r.body })
}
