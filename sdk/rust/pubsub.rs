//! Events published to topics.

use super::error::Result;
use super::{api, host, Json};

/// NewEvent is an event to publish: NewEvent::json("orders", &order). What is empty Loam fills in.
#[derive(Clone, Debug, Default)]
pub struct NewEvent {
    /// The pubsub component; empty: the default one.
    pub component: String,
    pub topic: String,
    /// Empty: one is made.
    pub id: String,
    /// What kind of thing happened; empty: the topic's name.
    pub r#type: String,
    /// What it happened to.
    pub subject: String,
    /// Of data; empty: application/json.
    pub content_type: String,
    pub data: Vec<u8>,
    /// Extensions: CloudEvents wants lower-case letters and digits for their names.
    pub attributes: Vec<(String, String)>,
}

impl NewEvent {
    /// An event whose data is JSON.
    pub fn json(topic: &str, value: &Json) -> NewEvent {
        NewEvent::bytes(topic, "application/json", value.to_string())
    }

    /// An event whose data is text.
    pub fn text(topic: &str, text: &str) -> NewEvent {
        NewEvent::bytes(topic, "text/plain; charset=utf-8", text)
    }

    /// An event with data of that type.
    pub fn bytes(topic: &str, content_type: &str, data: impl Into<Vec<u8>>) -> NewEvent {
        NewEvent {
            topic: topic.to_string(),
            content_type: content_type.to_string(),
            data: data.into(),
            ..NewEvent::default()
        }
    }

    pub(super) fn into_api(self) -> api::Publication {
        let attributes = self.attributes.into_iter().map(|(name, value)| api::Attribute { name, value }).collect();
        api::Publication {
            component: self.component,
            topic: self.topic,
            id: self.id,
            r#type: self.r#type,
            subject: self.subject,
            content_type: self.content_type,
            attributes,
            data: self.data,
        }
    }
}

/// Publishes one event, durably once it returns Ok. To publish with a write, use Tx::publish.
pub fn publish(event: NewEvent) -> Result<()> {
    let request = api::PubsubPublishRequest { events: vec![event.into_api()] };
    host::invoke::<api::PubsubPublishResponse>("pubsub.Publish", &request).map(|_| ())
}
