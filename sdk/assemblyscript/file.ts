// Objects under names such as reports/2026/11.pdf.

import * as api from "./api";
import * as host from "./host";
import { Failure, Result } from "./errors";
import { Field } from "./http";

/** What is known of an object. */
export class FileInfo {
  size: i64 = 0; // in bytes, of the whole object
  etag: string = "";
  modifiedUnixMs: i64 = 0;
  contentType: string = "";
  metadata: Field[] = []; // names are in lower case

  constructor(public name: string) {}

  /** A word that was kept beside the object; "" where there is none of that name. */
  word(name: string): string {
    for (let i = 0; i < this.metadata.length; i++) {
      if (this.metadata[i].name == name) return this.metadata[i].value;
    }
    return "";
  }
}

/** An object, or a part of it. */
export class File {
  constructor(
    public info: FileInfo,
    public data: Uint8Array,
  ) {}
}

/** What to list. */
export class FileQuery {
  delimiter: string = ""; // "/": names that go on after it are one entry of prefixes
  after: string = ""; // only what comes after that name
  limit: u32 = 0; // of items and prefixes together; 0: 1000, the most

  constructor(public prefix: string) {}
}

/** The attributes that the contract has for fields. */
export function attributes(fields: Field[]): api.Attribute[] {
  const all: api.Attribute[] = [];
  for (let i = 0; i < fields.length; i++) {
    const a = new api.Attribute();
    a.name = fields[i].name;
    a.value = fields[i].value;
    all.push(a);
  }
  return all;
}

/** The fields that attributes of the contract are. */
export function fieldsOf(all: api.Attribute[]): Field[] {
  const fields: Field[] = [];
  for (let i = 0; i < all.length; i++) fields.push(new Field(all[i].name, all[i].value));
  return fields;
}

/** A component of the file capability. */
export class FileStore {
  constructor(private component: string) {}

  /**
   * Stores data under name, whole or not at all, and returns its ETag. A call takes up to 16 MiB: what is larger is appended
   * piece by piece.
   */
  put(name: string, data: Uint8Array, contentType: string = "", metadata: Field[] = []): Result<string> {
    const q = new api.FilePutRequest();
    q.component = this.component;
    q.name = name;
    q.contentType = contentType;
    q.metadata = attributes(metadata);
    q.data = data;
    const r = host.call<api.FilePutResponse>("file.Put", q);
    if (!r.ok) return Result.failed<string>(r.failure!);
    return Result.of<string>(r.value.etag);
  }

  /**
   * Adds to the end of an object, which must be at offset, and returns where the end is then; offset 0 makes a new one.
   * FailedPrecondition: the end is elsewhere.
   */
  append(name: string, offset: i64, data: Uint8Array): Result<i64> {
    const q = new api.FileAppendRequest();
    q.component = this.component;
    q.name = name;
    q.offset = offset;
    q.data = data;
    const r = host.call<api.FileAppendResponse>("file.Append", q);
    if (!r.ok) return Result.failed<i64>(r.failure!);
    return Result.of<i64>(r.value.size);
  }

  /**
   * length bytes of an object from offset on, or fewer where it ends before; a length of 0 means to its end, up to 16 MiB.
   * NotFound: there is none; OutOfRange: offset is past its end.
   */
  get(name: string, offset: i64 = 0, length: i64 = 0): Result<File> {
    const q = new api.FileGetRequest();
    q.component = this.component;
    q.name = name;
    q.offset = offset;
    q.length = length;
    const r = host.call<api.FileGetResponse>("file.Get", q);
    if (!r.ok) return Result.failed<File>(r.failure!);
    const info = new FileInfo(name);
    info.size = r.value.size;
    info.etag = r.value.etag;
    info.modifiedUnixMs = r.value.modifiedUnixMs;
    info.contentType = r.value.contentType;
    info.metadata = fieldsOf(r.value.metadata);
    return Result.of<File>(new File(info, r.value.data));
  }

  /** What an object is. NotFound: there is none. */
  stat(name: string): Result<FileInfo> {
    const q = new api.FileStatRequest();
    q.component = this.component;
    q.name = name;
    const r = host.call<api.FileStatResponse>("file.Stat", q);
    if (!r.ok) return Result.failed<FileInfo>(r.failure!);
    const info = new FileInfo(name);
    info.size = r.value.size;
    info.etag = r.value.etag;
    info.modifiedUnixMs = r.value.modifiedUnixMs;
    info.contentType = r.value.contentType;
    info.metadata = fieldsOf(r.value.metadata);
    return Result.of<FileInfo>(info);
  }

  /** What there is under names, one page. It needs a grant for all that begins with the prefix. */
  list(query: FileQuery): Result<api.FileListResponse> {
    const q = new api.FileListRequest();
    q.component = this.component;
    q.prefix = query.prefix;
    q.delimiter = query.delimiter;
    q.after = query.after;
    q.limit = query.limit;
    return host.call<api.FileListResponse>("file.List", q);
  }

  /** Removes an object. NotFound: there is none. */
  delete(name: string): Failure | null {
    const q = new api.FileDeleteRequest();
    q.component = this.component;
    q.name = name;
    return host.call<api.Empty>("file.Delete", q).failure;
  }
}

/** The component of that name. */
export function file(component: string = ""): FileStore {
  return new FileStore(component);
}
