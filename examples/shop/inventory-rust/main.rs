//! The shop's stock function in Rust, for ../inventory in Go: it locks what an order asks for, or rejects the order. Stock
//! never falls below zero, and an order that is announced twice is counted once.

#[path = "../../../sdk/rust/loam.rs"]
mod loam;

use loam::{Code, Error, Event, If, Item, Json, NewEvent, Request, Response, Result};

/// What an item has in stock before anybody said otherwise.
const OPENING: i64 = 100;

fn init() {
    loam::handle("GET /stock", list);
    loam::handle("GET /stock/{item}", get);
    loam::handle("PUT /stock/{item}", put);
    loam::handle_event("/events/order-created", reserve);
}

/// Takes an order's count off the stock, remembers that it did, and says so: all in one transaction.
fn reserve(_: &Request, e: Event) -> Result<()> {
    let order = e.json()?;
    loop {
        match try_reserve(&order) {
            Err(e) if e.is_conflict() => continue, // another order took from the same stock meanwhile: look again
            result => return result,
        }
    }
}

fn try_reserve(order: &Json) -> Result<()> {
    let wrong = || Error::new(Code::InvalidArgument, "an order has an id, an item and a count");
    let id = order.get("id").as_i64().ok_or_else(wrong)?;
    let item = order.get("item").as_str().ok_or_else(wrong)?;
    let wanted = order.get("count").as_i64().ok_or_else(wrong)?;
    let (key, mark) = (format!("stock/{item}"), format!("reservation/{id}"));
    let items = loam::state("").get_many(&[&key, &mark])?;
    if items[1].exists() {
        return Ok(());
    }
    let stock = count(&items[0])?;
    let mut tx = loam::state("").begin();
    let mut topic = "StockRejected";
    if stock >= wanted {
        topic = "StockLocked";
        tx.put(&key, (stock - wanted).to_string(), If::Match(items[0].etag.clone()));
    }
    tx.put(&mark, Json::from(topic).to_string(), If::Absent);
    tx.publish(NewEvent::json(topic, order));
    tx.commit()
}

fn count(item: &Item) -> Result<i64> {
    if !item.exists() {
        return Ok(OPENING);
    }
    item.json()?.as_i64().ok_or_else(|| Error::new(Code::DataLoss, format!("{} is not a number", item.key)))
}

fn stock(item: &str, count: i64) -> Json {
    Json::object([("item", Json::from(item)), ("count", Json::from(count))])
}

fn get(r: &Request) -> Result<Response> {
    let item = r.path_value("item");
    let items = loam::state("").get_many(&[&format!("stock/{item}")])?;
    Ok(Response::json(200, &stock(item, count(&items[0])?)))
}

fn put(r: &Request) -> Result<Response> {
    let item = r.path_value("item");
    let body = r.json()?;
    let count = match body.get("count") {
        Json::Null => 0, // as where it is left out
        n => n.as_i64().unwrap_or(-1),
    };
    if count < 0 {
        return Err(Error::new(Code::InvalidArgument, "stock looks like {\"count\":10}, and is not negative"));
    }
    loam::state("").put(&format!("stock/{item}"), count.to_string(), If::Any)?;
    Ok(Response::json(200, &stock(item, count)))
}

fn list(_: &Request) -> Result<Response> {
    let mut all = Vec::new();
    for it in loam::state("").list("stock/", "", 100)? {
        all.push(stock(it.key.trim_start_matches("stock/"), count(&it)?));
    }
    Ok(Response::json(200, &Json::Array(all)))
}
