/*
 * The function of this example in C: it calls everything that there is to call. Its twins in the other folders do the
 * same, line by line.
 */
#define LOAM_IMPLEMENTATION
#include "../../../sdk/c/loam.h"

#include <time.h>
#include <unistd.h>

static loam_header *field(const char *name, const char *value)
{
	loam_header *h = loam_alloc(sizeof *h);
	*h = (loam_header){name, value};
	return h;
}

/* Counts how often it greeted whom. Two requests that greet the same name both read its ETag; the slower one looks
 * again. */
static loam_code hello(loam_request *r, loam_response *w)
{
	const char *name = loam_path_value(r, "name"), *key = loam_format("visits/%s", name);
	const char *greeting = loam_query(r, "greeting");
	loam_code code;
	if (!greeting && (code = loam_config_get("", "greeting", &greeting)))
		return code;
	for (;;) {
		loam_state_item item;
		code = loam_state_get("", key, &item);
		if (code && code != LOAM_NOT_FOUND)
			return code;
		int n = item.value.len ? atoi(item.value.data) + 1 : 1;
		code = loam_state_put("", key, loam_bytes_of(loam_format("%d", n)), item.etag, 0);
		if (loam_is_conflict(code))
			continue;
		if (code)
			return code;
		loam_log(LOAM_INFO, "greeted", "name", name, NULL);
		return loam_text(w, 200, loam_format("%s, %s! Visit %d.\n", greeting, name, n));
	}
}

static loam_code visits(loam_request *r, loam_response *w)
{
	(void)r;
	const char *page = "";
	loam_state_list_response list;
	loam_code code = loam_state_list("", "visits/", "", 10, &list);
	if (code)
		return code;
	for (size_t i = 0; i < list.items_len; i++)
		page = loam_format("%s%s: %s\n", page, list.items[i].key + strlen("visits/"), list.items[i].value.data);
	return loam_html(w, 200, page);
}

/* Stores a note and says so, both or neither; a note is written once. */
static loam_code put_note(loam_request *r, loam_response *w)
{
	const char *id = loam_path_value(r, "id");
	loam_bytes body;
	loam_code code = loam_body(r, &body);
	if (code)
		return code;
	if (body.len == 0)
		return loam_fail(LOAM_INVALID_ARGUMENT, "a note says something, even <this> \"one\"");
	loam_attribute size = {"size", loam_format("%zu", body.len)};
	loam_tx tx = loam_tx_begin("");
	loam_tx_put(&tx, loam_format("notes/%s", id), body, LOAM_ABSENT, 3600 * 1000);
	loam_tx_publish(&tx, (loam_publication){
		.topic = "notes", .subject = id, .content_type = "application/octet-stream", .data = body,
		.attributes = &size, .attributes_len = 1,
	});
	if ((code = loam_tx_commit(&tx)))
		return code;
	loam_text(w, 201, "");
	loam_add_header(w, "Location", loam_format("/notes/%s", id));
	return LOAM_OK;
}

static loam_code get_note(loam_request *r, loam_response *w)
{
	loam_state_item item;
	loam_code code = loam_state_get("", loam_format("notes/%s", loam_path_value(r, "id")), &item);
	return code ? code : loam_answer(w, 200, "application/octet-stream", item.value);
}

static loam_code delete_note(loam_request *r, loam_response *w)
{
	loam_code code = loam_state_delete("", loam_format("notes/%s", loam_path_value(r, "id")), LOAM_ANY);
	return code ? code : loam_no_content(w);
}

/* Remembers what it was told. What no one will ever read is dropped; for some it has no time yet. */
static loam_code noted(loam_request *r, const loam_event *e)
{
	(void)r;
	loam_state_item item;
	if (!strcmp(e->data.data, "nonsense"))
		return loam_fail(LOAM_DROP_EVENT, "it is nonsense");
	if (!strcmp(e->data.data, "later"))
		return loam_fail(LOAM_UNAVAILABLE, "not now");
	if (!strcmp(e->data.data, "missing"))
		return loam_state_get("", "notes/missing", &item);
	const char *size = "";
	for (size_t i = 0; i < e->attributes_len; i++)
		if (!strcmp(e->attributes[i].name, "size"))
			size = e->attributes[i].value;
	const char *line = loam_format("%s %s %s %s %s %s %zu", e->type, e->source, e->topic, e->subject, e->content_type, size,
				       e->data.len);
	return loam_state_put("", loam_format("seen/%s", e->id), loam_bytes_of(line), LOAM_ANY, 0);
}

static loam_code announce(loam_request *r, loam_response *w)
{
	loam_bytes body;
	loam_code code = loam_body(r, &body);
	if (!code)
		code = loam_publish((loam_publication){
			.topic = loam_path_value(r, "topic"), .id = "one", .type = "Announced",
			.content_type = "text/plain; charset=utf-8", .data = body,
		});
	return code ? code : loam_no_content(w);
}

static loam_code take_lock(loam_request *r, loam_response *w)
{
	bool acquired;
	loam_code code = loam_lock_try("", loam_path_value(r, "name"), loam_path_value(r, "owner"), 60000, &acquired);
	if (code)
		return code;
	return acquired ? loam_text(w, 200, "yours\n") : loam_fail(LOAM_FAILED_PRECONDITION, "another holds it");
}

static loam_code renew_lock(loam_request *r, loam_response *w)
{
	loam_code code = loam_lock_renew("", loam_path_value(r, "name"), loam_path_value(r, "owner"), 60000);
	return code ? code : loam_no_content(w);
}

static loam_code free_lock(loam_request *r, loam_response *w)
{
	loam_code code = loam_lock_unlock("", loam_path_value(r, "name"), loam_path_value(r, "owner"));
	return code ? code : loam_no_content(w);
}

static loam_code tickets(loam_request *r, loam_response *w)
{
	char *end;
	const char *count = loam_path_value(r, "count");
	long long n = strtoll(count, &end, 10);
	if (*end)
		return loam_fail(LOAM_INVALID_ARGUMENT, "how many?");
	int64_t first;
	loam_code code = loam_sequence_next("", "tickets", n, &first);
	return code ? code : loam_text(w, 200, loam_format("%lld\n", (long long)first));
}

static loam_code settings(loam_request *r, loam_response *w)
{
	(void)r;
	const char *list = "";
	loam_config_get_response all;
	loam_code code = loam_config_all("", &all);
	if (code)
		return code;
	for (size_t i = 0; i < all.items_len; i++)
		list = loam_format("%s%s=%s\n", list, all.items[i].key, all.items[i].value);
	return loam_text(w, 200, list);
}

/* Tells how long a secret is, and never what. */
static loam_code secret(loam_request *r, loam_response *w)
{
	loam_bytes value;
	loam_code code = loam_secret("", loam_path_value(r, "name"), &value);
	return code ? code : loam_text(w, 200, loam_format("%zu bytes\n", value.len));
}

/* Hands a request on to another function. */
static loam_code ask(loam_request *r, loam_response *w)
{
	loam_response answer;
	loam_outgoing request = {.headers = field("X-Asked-By", r->id), .headers_len = 1, .timeout_ms = 1000};
	loam_code code = loam_body(r, &request.body);
	if (!code)
		code = loam_invoke(loam_path_value(r, "target"), loam_format("/%s?%s", loam_path_value(r, "path"), r->query), &request,
				   &answer);
	return code ? code : loam_answer(w, answer.status, loam_response_header(&answer, "content-type"), answer.body);
}

static loam_code fetch(loam_request *r, loam_response *w)
{
	loam_response answer;
	const char *url = loam_query(r, "url");
	loam_code code = loam_fetch(url ? url : "", NULL, &answer);
	return code ? code : loam_text(w, 200, loam_format("%d %s", answer.status, answer.body.len ? answer.body.data : ""));
}

static loam_code put_file(loam_request *r, loam_response *w)
{
	loam_attribute by = {"By", "tour"};
	loam_file_put_request file = {
		.name = loam_path_value(r, "name"), .content_type = loam_request_header(r, "content-type"), .metadata = &by,
		.metadata_len = 1,
	};
	loam_file_put_response kept;
	loam_code code = loam_body(r, &file.data);
	if (!code)
		code = loam_file_put(file, &kept);
	return code ? code : loam_text(w, 201, loam_format("%s\n", kept.etag));
}

/* Adds to the end of a file, wherever that is. */
static loam_code append_file(loam_request *r, loam_response *w)
{
	int64_t end;
	loam_file_stat_response info;
	loam_file_append_request piece = {.name = loam_path_value(r, "name")};
	loam_code code = loam_body(r, &piece.data);
	if (code)
		return code;
	code = loam_file_stat("", piece.name, &info);
	if (code && code != LOAM_NOT_FOUND)
		return code;
	piece.offset = info.size;
	code = loam_file_append(piece, &end);
	return code ? code : loam_text(w, 200, loam_format("%lld bytes\n", (long long)end));
}

static long long number(loam_request *r, const char *name)
{
	const char *text = loam_query(r, name);
	return text ? strtoll(text, NULL, 10) : 0; /* from its begin where nothing is said */
}

static loam_code get_file(loam_request *r, loam_response *w)
{
	loam_file_get_response file;
	loam_code code = loam_file_get("", loam_path_value(r, "name"), number(r, "from"), number(r, "length"), &file);
	if (code)
		return code;
	const char *by = "";
	for (size_t i = 0; i < file.metadata_len; i++)
		if (!strcmp(file.metadata[i].name, "by"))
			by = file.metadata[i].value;
	loam_answer(w, 200, file.content_type, file.data);
	loam_add_header(w, "X-File", loam_format("%lld %s by %s", (long long)file.size, file.etag, by));
	return LOAM_OK;
}

static loam_code delete_file(loam_request *r, loam_response *w)
{
	loam_code code = loam_file_delete("", loam_path_value(r, "name"));
	return code ? code : loam_no_content(w);
}

static loam_code folder(loam_request *r, loam_response *w)
{
	const char *page = "";
	loam_file_list_response list;
	loam_file_list_request query = {.prefix = loam_query(r, "prefix"), .delimiter = "/", .after = loam_query(r, "after"), .limit = 2};
	loam_code code = loam_file_list(query, &list);
	if (code)
		return code;
	for (size_t i = 0; i < list.prefixes_len; i++)
		page = loam_format("%s%s\n", page, list.prefixes[i]);
	for (size_t i = 0; i < list.items_len; i++)
		page = loam_format("%s%s: %lld\n", page, list.items[i].name, (long long)list.items[i].size);
	return loam_text(w, 200, loam_format("%snext: %s\n", page, list.next));
}

/* The same bytes with one bit of the byte at i turned round. */
static loam_bytes changed(loam_bytes b, size_t i)
{
	if (i >= b.len)
		return b;
	char *copy = memcpy(loam_alloc(b.len), b.data, b.len);
	copy[i] ^= 1;
	return (loam_bytes){copy, b.len};
}

/* Encrypts what it is sent, and answers what opens again; with ?broken=yes it is changed on the way. */
static loam_code seal(loam_request *r, loam_response *w)
{
	const char *broken = loam_query(r, "broken");
	loam_bytes b;
	loam_code code = loam_body(r, &b);
	if (!code)
		code = loam_seal("", loam_path_value(r, "key"), "AES", b, &b);
	if (!code && broken && *broken)
		b = changed(b, b.len - 1);
	if (!code)
		code = loam_open("", "", b, &b);
	return code ? code : loam_answer(w, 200, "application/octet-stream", b);
}

/* Does the single operations with a key, there and back. Only an example repeats a nonce. */
static loam_code cipher(loam_request *r, loam_response *w)
{
	const char *name = loam_path_value(r, "key");
	loam_bytes body, plain, key, nonce = loam_bytes_of("twelve bytes"), tour = loam_bytes_of("tour");
	loam_crypto_encrypt_response secret;
	loam_crypto_wrap_response wrapped;
	loam_code code = loam_body(r, &body);
	if (!code)
		code = loam_encrypt((loam_crypto_encrypt_request){
			.key = name, .algorithm = "A256GCM", .nonce = nonce, .associated = tour, .data = body,
		}, &secret);
	if (!code)
		code = loam_decrypt((loam_crypto_decrypt_request){
			.key = name, .algorithm = "A256GCM", .nonce = nonce, .associated = tour, .data = secret.data, .tag = secret.tag,
		}, &plain);
	if (!code)
		code = loam_wrap((loam_crypto_wrap_request){
			.key = name, .algorithm = "A256KW", .data = loam_bytes_of("a key of 16 byte"),
		}, &wrapped);
	if (!code)
		code = loam_unwrap((loam_crypto_unwrap_request){.key = name, .algorithm = "A256KW", .data = wrapped.data}, &key);
	if (code)
		return code;
	return loam_text(w, 200, loam_format("%zu, %zu: %.*s; %zu: %.*s\n", secret.data.len, secret.tag.len, (int)plain.len, plain.data,
					     wrapped.data.len, (int)key.len, key.data));
}

/* Signs what it is sent, and looks whether that can be told from another signature. */
static loam_code sign(loam_request *r, loam_response *w)
{
	const char *key = loam_path_value(r, "key");
	bool good, bad;
	loam_bytes body, signature;
	loam_code code = loam_body(r, &body);
	if (!code)
		code = loam_sign("", key, "EdDSA", body, &signature);
	if (!code)
		code = loam_verify("", key, "EdDSA", body, signature, &good);
	if (!code)
		code = loam_verify("", key, "EdDSA", body, changed(signature, 0), &bad);
	if (code)
		return code;
	return loam_text(w, 200, loam_format("%zu bytes, %s, %s\n", signature.len, good ? "true" : "false", bad ? "true" : "false"));
}

static loam_code public_key(loam_request *r, loam_response *w)
{
	const char *text;
	loam_code code = loam_public_key("", loam_path_value(r, "key"), false, &text);
	return code ? code : loam_text(w, 200, text);
}

/* Asks the binding for something of the file that the query names. */
static loam_code bind_file(loam_request *r, loam_response *w)
{
	const char *file = loam_query(r, "file");
	loam_attribute name = {"fileName", file ? file : ""};
	loam_binding_invoke_response answer;
	loam_bytes body;
	loam_code code = loam_body(r, &body);
	if (!code)
		code = loam_bind("", loam_path_value(r, "operation"), body, &name, 1, &answer);
	return code ? code : loam_answer(w, 200, "application/octet-stream", answer.data);
}

/* Has what it is sent brought back by work: when the query says, and in place of a job of that name if it says so. */
static loam_code schedule(loam_request *r, loam_response *w)
{
	const char *replace = loam_query(r, "replace");
	loam_job job = {
		.name = loam_path_value(r, "name"), .due = loam_query(r, "due"), .schedule = loam_query(r, "schedule"),
		.content_type = "text/plain", .retry_after_ms = 50, .retries = 5,
	};
	job.repeats = job.schedule && *job.schedule ? 2 : 1;
	loam_code code = loam_body(r, &job.data);
	if (!code)
		code = loam_job_schedule("", job, replace && *replace);
	return code ? code : loam_no_content(w);
}

static loam_code get_job(loam_request *r, loam_response *w)
{
	loam_job j;
	loam_code code = loam_job_get("", loam_path_value(r, "name"), &j);
	if (code)
		return code;
	return loam_text(w, 200, loam_format("%s %s %s %u %s %lld %.*s\n", j.name, j.schedule, j.due, (unsigned)j.repeats, j.content_type,
					     (long long)j.retries, (int)j.data.len, j.data.data));
}

static loam_code delete_job(loam_request *r, loam_response *w)
{
	loam_code code = loam_job_delete("", loam_path_value(r, "name"));
	return code ? code : loam_no_content(w);
}

/* Remembers what a job brought, and refuses the same jobs as noted does events. */
static loam_code work(loam_request *r, loam_bytes data)
{
	loam_state_item item;
	const char *text = loam_format("%.*s", (int)data.len, data.data);
	if (!strcmp(text, "nonsense"))
		return loam_fail(LOAM_DROP_EVENT, "it is nonsense");
	if (!strcmp(text, "later"))
		return loam_fail(LOAM_UNAVAILABLE, "not now");
	if (!strcmp(text, "missing"))
		return loam_state_get("", "notes/missing", &item);
	const char *line = loam_format("%s %s", loam_request_header(r, "content-type"), text);
	return loam_state_put("", loam_format("notes/job-%s", loam_path_value(r, "name")), loam_bytes_of(line), LOAM_ANY, 0);
}

/* Remembers what an input binding brought, and answers it. */
static loam_code tick(loam_request *r, loam_response *w)
{
	loam_bytes body;
	loam_code code = loam_body(r, &body);
	if (code)
		return code;
	const char *line = loam_format("%s %.*s", loam_request_header(r, "timeZone"), (int)body.len, body.data);
	code = loam_state_put("", "notes/tick", loam_bytes_of(line), LOAM_ANY, 0);
	return code ? code : loam_text(w, 200, "ticked\n");
}

/* Says what came. */
static loam_code echo(loam_request *r, loam_response *w)
{
	loam_bytes body;
	loam_code code = loam_body(r, &body);
	if (code)
		return code;
	bool late = r->deadline_unix_ms && (int64_t)time(NULL) * 1000 > r->deadline_unix_ms;
	loam_answer(w, 200, loam_request_header(r, "content-type"), body);
	loam_add_header(w, "X-Echo", loam_format("%s %s %s %s", r->method, r->host, r->path, r->query));
	loam_add_header(w, "X-Fields", loam_format("%zu", r->headers_len));
	loam_add_header(w, "X-Late", late ? "true" : "false");
	return LOAM_OK;
}

/* Another number for each request, though all begin from the same memory. */
static loam_code random_number(loam_request *r, loam_response *w)
{
	(void)r;
	uint64_t n;
	if (getentropy(&n, sizeof n))
		return loam_fail(LOAM_INTERNAL, "there is no randomness");
	return loam_text(w, 200, loam_format("%llu", (unsigned long long)n));
}

static loam_code broken(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	return loam_fail(LOAM_UNKNOWN, "this stays in the log");
}

static loam_code crash(loam_request *r, loam_response *w)
{
	(void)r, (void)w;
	fprintf(stderr, "this too\n");
	abort();
}

void loam_init(void)
{
	loam_handle("GET /hello/{name}", hello);
	loam_handle("GET /visits", visits);
	loam_handle("PUT /notes/{id}", put_note);
	loam_handle("GET /notes/{id}", get_note);
	loam_handle("DELETE /notes/{id}", delete_note);
	loam_handle_event("/events/notes", noted);
	loam_handle("POST /announce/{topic}", announce);
	loam_handle("POST /locks/{name}/{owner}", take_lock);
	loam_handle("PUT /locks/{name}/{owner}", renew_lock);
	loam_handle("DELETE /locks/{name}/{owner}", free_lock);
	loam_handle("POST /tickets/{count}", tickets);
	loam_handle("GET /settings", settings);
	loam_handle("GET /secrets/{name}", secret);
	loam_handle("POST /ask/{target}/{path...}", ask);
	loam_handle("GET /fetch", fetch);
	loam_handle("PUT /files/{name...}", put_file);
	loam_handle("POST /files/{name...}", append_file);
	loam_handle("GET /files/{name...}", get_file);
	loam_handle("DELETE /files/{name...}", delete_file);
	loam_handle("GET /folder", folder);
	loam_handle("POST /seal/{key}", seal);
	loam_handle("POST /cipher/{key}", cipher);
	loam_handle("POST /sign/{key}", sign);
	loam_handle("GET /keys/{key}", public_key);
	loam_handle("POST /bind/{operation}", bind_file);
	loam_handle("POST /jobs/{name}", schedule);
	loam_handle("GET /jobs/{name}", get_job);
	loam_handle("DELETE /jobs/{name}", delete_job);
	loam_handle_job("{name}", work);
	loam_handle("POST /tick", tick);
	loam_handle("/echo/", echo);
	loam_handle("GET /random", random_number);
	loam_handle("GET /broken", broken);
	loam_handle("GET /crash", crash);
}
