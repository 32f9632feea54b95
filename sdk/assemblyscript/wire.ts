// The proto3 wire format, as far as the contract uses it.

/** Any message of the contract. */
export abstract class Message {
  /** Appends the message's fields. */
  abstract write(w: Writer): void;
  /** Takes the field in that the reader stands at; what it does not know it leaves alone. */
  abstract read(r: Reader): void;
}

/** The message as bytes. */
export function encode(m: Message): Uint8Array {
  const w = new Writer();
  m.write(w);
  return w.done();
}

/** Reads a whole message. Bytes that hold none end the program: they come from the host, which writes no such. */
export function decode<M extends Message>(b: Uint8Array): M {
  const m = instantiate<M>();
  const r = new Reader(b);
  while (r.next()) m.read(r);
  return m;
}

/** The bytes of a text in UTF-8. */
export function bytesOf(s: string): Uint8Array {
  return Uint8Array.wrap(String.UTF8.encode(s));
}

/** The text that bytes are in UTF-8. */
export function textOf(b: Uint8Array): string {
  return String.UTF8.decodeUnsafe(b.dataStart, b.length);
}

export class Writer {
  private data: Uint8Array = new Uint8Array(256);
  private length: i32 = 0;

  done(): Uint8Array {
    return this.data.subarray(0, this.length);
  }

  /** Makes room for size more bytes and says where it is. */
  private room(size: i32): usize {
    const end = this.length + size;
    if (end > this.data.length) {
      const more = new Uint8Array(max(2 * this.data.length, end));
      memory.copy(more.dataStart, this.data.dataStart, this.length);
      this.data = more;
    }
    const at = this.data.dataStart + this.length;
    this.length = end;
    return at;
  }

  private varint(x: u64): void {
    while (x >= 0x80) {
      store<u8>(this.room(1), <u8>x | 0x80);
      x >>= 7;
    }
    store<u8>(this.room(1), <u8>x);
  }

  private each(number: u32, x: Uint8Array): void {
    this.varint((number << 3) | 2);
    this.varint(x.length);
    memory.copy(this.room(x.length), x.dataStart, x.length);
  }

  bytes(number: u32, x: Uint8Array): void {
    if (x.length > 0) this.each(number, x);
  }

  string(number: u32, x: string): void {
    this.bytes(number, bytesOf(x));
  }

  /** An element of a list is written even where it is empty. */
  eachString(number: u32, x: string): void {
    this.each(number, bytesOf(x));
  }

  message(number: u32, x: Message): void {
    this.each(number, encode(x));
  }

  int64(number: u32, x: i64): void {
    if (x == 0) return;
    this.varint(number << 3);
    this.varint(x);
  }

  uint32(number: u32, x: u32): void {
    this.int64(number, x);
  }

  bool(number: u32, x: bool): void {
    this.int64(number, x ? 1 : 0);
  }
}

/** Reads a message field by field: while (r.next()) look at r.number, take r's value. */
export class Reader {
  number: u32 = 0;
  private wire: u32 = 0;
  private value: u64 = 0;
  private slice: Uint8Array;
  private at: i32 = 0;

  constructor(private data: Uint8Array) {
    this.slice = data;
  }

  /** Goes to the next field; false at the end. */
  next(): bool {
    if (this.at == this.data.length) return false;
    const tag = this.varint();
    const number = tag >> 3;
    assert(number > 0 && number < 1 << 29, "a message's field has no valid number");
    this.number = <u32>number;
    this.wire = <u32>tag & 7;
    switch (this.wire) {
      case 0:
        this.value = this.varint();
        break;
      case 1:
        this.take(8);
        break;
      case 2:
        this.take(this.varint());
        break;
      case 5:
        this.take(4);
        break;
      default:
        assert(false, "a message's field has no valid wire type");
    }
    return true;
  }

  private take(size: u64): void {
    assert(size <= <u64>(this.data.length - this.at), "a message ends too early");
    this.slice = this.data.subarray(this.at, this.at + <i32>size);
    this.at += <i32>size;
  }

  private varint(): u64 {
    let x: u64 = 0;
    for (let shift: u64 = 0; shift < 70; shift += 7) {
      assert(this.at < this.data.length, "a message ends too early");
      const c = this.data[this.at++];
      assert(shift < 63 || c <= 1, "a message's number is longer than 64 bits");
      x |= (<u64>(c & 0x7f)) << shift;
      if (c < 0x80) return x;
    }
    return x;
  }

  /** The bytes share the message's memory. */
  bytes(): Uint8Array {
    assert(this.wire == 2, "a message's field has another wire type than declared");
    return this.slice;
  }

  string(): string {
    return textOf(this.bytes());
  }

  int64(): i64 {
    assert(this.wire == 0, "a message's field has another wire type than declared");
    return this.value;
  }

  uint32(): u32 {
    return <u32>this.int64();
  }

  bool(): bool {
    return this.int64() != 0;
  }
}
