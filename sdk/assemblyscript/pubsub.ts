// Events published to topics.

import * as api from "./api";
import * as host from "./host";
import { Failure } from "./errors";
import { Field } from "./http";
import { bytesOf } from "./wire";

/** An event to publish. What is empty Loam fills in. */
export class NewEvent {
  component: string = ""; // the pubsub component; empty: the default one
  id: string = ""; // empty: one is made
  type: string = ""; // what kind of thing happened; empty: the topic's name
  subject: string = ""; // what it happened to
  attributes: Field[] = []; // extensions: CloudEvents wants lower-case letters and digits for their names

  constructor(
    public topic: string,
    public contentType: string,
    public data: Uint8Array,
  ) {}

  /** An event whose data is text that is JSON. */
  static json(topic: string, text: string): NewEvent {
    return new NewEvent(topic, "application/json", bytesOf(text));
  }

  /** An event whose data is text. */
  static text(topic: string, text: string): NewEvent {
    return new NewEvent(topic, "text/plain; charset=utf-8", bytesOf(text));
  }

  toApi(): api.Publication {
    const p = new api.Publication();
    p.component = this.component;
    p.topic = this.topic;
    p.id = this.id;
    p.type = this.type;
    p.subject = this.subject;
    p.contentType = this.contentType;
    p.data = this.data;
    for (let i = 0; i < this.attributes.length; i++) {
      const a = new api.Attribute();
      a.name = this.attributes[i].name;
      a.value = this.attributes[i].value;
      p.attributes.push(a);
    }
    return p;
  }
}

/** Publishes one event, durably once it is null. To publish with a write, use Tx.publish. */
export function publish(event: NewEvent): Failure | null {
  const q = new api.PubsubPublishRequest();
  q.events.push(event.toApi());
  return host.call<api.PubsubPublishResponse>("pubsub.Publish", q).failure;
}
