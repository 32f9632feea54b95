//! The proto3 wire format, as far as the contract uses it.

/// Message is any message of the contract.
pub trait Message: Default {
    /// Appends the message in the wire format.
    fn encode(&self, b: &mut Vec<u8>);
    /// Takes one field in; what it does not know it leaves alone.
    fn merge(&mut self, f: Field) -> Result<(), Malformed>;

    /// Reads a whole message.
    fn decode(mut b: &[u8]) -> Result<Self, Malformed> {
        let mut m = Self::default();
        while !b.is_empty() {
            let f = Field::cut(&mut b)?;
            m.merge(f)?;
        }
        Ok(m)
    }
}

/// Malformed is what bytes are that hold no message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Malformed;

/// Field is one field as it stands on the wire.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    pub number: u32,
    value: Value<'a>,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other, // fixed-size numbers, which the contract has none of
}

impl<'a> Field<'a> {
    /// Cuts the first field off b.
    fn cut(b: &mut &'a [u8]) -> Result<Self, Malformed> {
        let tag = varint(b)?;
        let number = tag >> 3;
        if number == 0 || number > (1 << 29) - 1 {
            return Err(Malformed);
        }
        let value = match tag & 7 {
            0 => Value::Number(varint(b)?),
            1 => take(b, 8).map(|_| Value::Other)?,
            2 => {
                let size = varint(b)?;
                Value::Bytes(take(b, size)?)
            }
            5 => take(b, 4).map(|_| Value::Other)?,
            _ => return Err(Malformed),
        };
        Ok(Field { number: number as u32, value })
    }

    fn number(&self) -> Result<u64, Malformed> {
        match self.value {
            Value::Number(n) => Ok(n),
            _ => Err(Malformed),
        }
    }

    fn slice(&self) -> Result<&'a [u8], Malformed> {
        match self.value {
            Value::Bytes(b) => Ok(b),
            _ => Err(Malformed),
        }
    }

    /// Text; what is not UTF-8 in it, as a header from outside may be, is replaced by U+FFFD.
    pub fn string(&self) -> Result<String, Malformed> {
        self.slice().map(|b| String::from_utf8_lossy(b).into_owned())
    }
    pub fn bytes(&self) -> Result<Vec<u8>, Malformed> {
        self.slice().map(<[u8]>::to_vec)
    }
    pub fn bool(&self) -> Result<bool, Malformed> {
        self.number().map(|n| n != 0)
    }
    pub fn int64(&self) -> Result<i64, Malformed> {
        self.number().map(|n| n as i64)
    }
    pub fn uint32(&self) -> Result<u32, Malformed> {
        self.number().map(|n| n as u32)
    }
    pub fn message<M: Message>(&self) -> Result<M, Malformed> {
        M::decode(self.slice()?)
    }
}

fn take<'a>(b: &mut &'a [u8], size: u64) -> Result<&'a [u8], Malformed> {
    if size > b.len() as u64 {
        return Err(Malformed);
    }
    let (head, rest) = b.split_at(size as usize);
    *b = rest;
    Ok(head)
}

fn varint(b: &mut &[u8]) -> Result<u64, Malformed> {
    let mut x = 0;
    for (i, &c) in b.iter().enumerate() {
        if i == 9 && c > 1 {
            break; // longer than 64 bits
        }
        x |= u64::from(c & 0x7f) << (7 * i);
        if c < 0x80 {
            *b = &b[i + 1..];
            return Ok(x);
        }
    }
    Err(Malformed)
}

fn put_varint(b: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        b.push(x as u8 | 0x80);
        x >>= 7;
    }
    b.push(x as u8);
}

fn put_slice(b: &mut Vec<u8>, number: u32, x: &[u8]) {
    put_varint(b, u64::from(number) << 3 | 2);
    put_varint(b, x.len() as u64);
    b.extend_from_slice(x);
}

fn put_number(b: &mut Vec<u8>, number: u32, x: u64) {
    if x != 0 {
        put_varint(b, u64::from(number) << 3);
        put_varint(b, x);
    }
}

pub fn put_string(b: &mut Vec<u8>, number: u32, x: &str) {
    put_bytes(b, number, x.as_bytes());
}

pub fn put_bytes(b: &mut Vec<u8>, number: u32, x: &[u8]) {
    if !x.is_empty() {
        put_slice(b, number, x);
    }
}

/// An element of a list is written even where it is empty.
pub fn put_each_string(b: &mut Vec<u8>, number: u32, x: &str) {
    put_slice(b, number, x.as_bytes());
}

pub fn put_bool(b: &mut Vec<u8>, number: u32, x: bool) {
    put_number(b, number, u64::from(x));
}

pub fn put_int64(b: &mut Vec<u8>, number: u32, x: i64) {
    put_number(b, number, x as u64);
}

pub fn put_uint32(b: &mut Vec<u8>, number: u32, x: u32) {
    put_number(b, number, u64::from(x));
}

pub fn put_message<M: Message>(b: &mut Vec<u8>, number: u32, x: &M) {
    let mut inner = Vec::new();
    x.encode(&mut inner);
    put_slice(b, number, &inner);
}
