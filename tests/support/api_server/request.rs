//! Routes and verbs: turns a request into stored objects and an answer. No I/O; uses the server's own time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::fields::{self, Conflict, Manager};
use super::schema::{is_whole, shape, undeclared};
use super::store::{ApiServer, Change, KINDS, Key, Kind, State, Stored};

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Apply,
    Merge,
    Replace,
    Delete,
}

impl Verb {
    /// Whether it may change an object.
    pub const fn writes(self) -> bool {
        match self {
            Self::Create | Self::Apply | Self::Merge | Self::Replace | Self::Delete => true,
            Self::Get | Self::List | Self::Watch => false,
        }
    }
}

/// A parsed request.
#[derive(Clone, Debug)]
pub struct Request {
    pub verb: Verb,
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub status: bool,
    pub query: BTreeMap<String, String>,
    pub metadata_only: bool,
    pub body: Value,
}

/// A deletion that the API server has decided on and not carried out yet.
#[derive(Debug)]
pub struct DecidedDeletion {
    key: Key,
    uid: Value,
}

/// An answer that is not a stream.
#[derive(Clone, Debug)]
pub struct Reply {
    pub code: u16,
    pub body: Arc<Value>,
}

impl Request {
    /// Parses method, path, query, headers and body.
    pub fn read(
        method: &Method,
        uri: &http::Uri,
        headers: &http::HeaderMap,
        body: &[u8],
    ) -> Result<Self, Reply> {
        let unknown = || {
            failure(
                404,
                "NotFound",
                "the server could not find the requested resource",
            )
        };
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let parts: Vec<&str> = uri
            .path()
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(unknown()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && rest[0] != "status" => {
                (*namespace, rest)
            }
            rest => ("", rest),
        };
        let (plural, name, status) = match rest {
            [plural] => (*plural, "", false),
            [plural, name] => (*plural, *name, false),
            [plural, name, "status"] => (*plural, *name, true),
            _ => return Err(unknown()),
        };
        let kind = *KINDS
            .iter()
            .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
            .ok_or_else(unknown)?;
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let watch = query
            .get("watch")
            .is_some_and(|value| value == "true" || value == "1");
        let verb = match (method, name.is_empty()) {
            (&Method::GET, true) if watch => Verb::Watch,
            (&Method::GET, true) => Verb::List,
            (&Method::GET, false) => Verb::Get,
            (&Method::POST, true) => Verb::Create,
            (&Method::PUT, false) => Verb::Replace,
            (&Method::DELETE, false) => Verb::Delete,
            (&Method::PATCH, false) if header("content-type").contains("apply-patch") => {
                Verb::Apply
            }
            (&Method::PATCH, false) if header("content-type").contains("merge-patch") => {
                Verb::Merge
            }
            _ => {
                return Err(failure(
                    405,
                    "MethodNotAllowed",
                    "the server does not allow this method on the requested resource",
                ));
            }
        };
        Ok(Self {
            verb,
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            status,
            query,
            metadata_only: header("accept").contains("as=PartialObjectMetadata"),
            body: if body.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(body)
                    .map_err(|error| failure(400, "BadRequest", &error.to_string()))?
            },
        })
    }

    pub fn flag(&self, name: &str) -> bool {
        self.query
            .get(name)
            .is_some_and(|value| value == "true" || value == "1")
    }

    fn key(&self) -> Key {
        (self.kind.plural, self.namespace.clone(), self.name.clone())
    }

    fn manager(&self, apply: bool) -> Manager {
        Manager {
            name: self
                .query
                .get("fieldManager")
                .cloned()
                .unwrap_or_else(|| "unknown".to_owned()),
            apply,
            subresource: if self.status { "status" } else { "" },
        }
    }
}

impl ApiServer {
    /// Answers everything but a watch. `revision` is the revision that a list shows: the newest one by default, or an older
    /// one.
    pub fn answer(&self, request: &Request, revision: Option<u64>) -> Reply {
        let answered = match request.verb {
            Verb::List | Verb::Watch => self.list(request, revision),
            Verb::Get => self.stored(request).map(|stored| ok(200, stored.object)),
            Verb::Create => self.create(request),
            Verb::Apply => self.apply(request),
            Verb::Merge => self.merge(request),
            Verb::Replace => self.replace(request),
            Verb::Delete => self.delete(request),
        };
        let mut reply = answered.unwrap_or_else(|refusal| refusal);
        if request.metadata_only && reply.code < 300 && request.verb != Verb::List {
            reply.body = Arc::new(metadata_of(&reply.body));
        }
        reply
    }

    fn stored(&self, request: &Request) -> Result<Stored, Reply> {
        self.state()
            .objects
            .get(&request.key())
            .cloned()
            .ok_or_else(|| not_found(request))
    }

    fn list(&self, request: &Request, revision: Option<u64>) -> Result<Reply, Reply> {
        let selected = Self::field_selector(request)?;
        let state = self.state();
        let limit: usize = request
            .query
            .get("limit")
            .and_then(|limit| limit.parse().ok())
            .unwrap_or(0);
        let (revision, after) = match request
            .query
            .get("continue")
            .filter(|token| !token.is_empty())
        {
            None => (revision.unwrap_or(state.revision), None),
            Some(token) => match read_token(token) {
                Some((revision, after)) => (revision, Some(after)),
                None => return Err(failure(400, "BadRequest", "continue key is not valid")),
            },
        };
        let rows: Vec<(Key, Arc<Value>)> = state
            .at(request.kind.plural, revision)
            .into_iter()
            .filter(|((_, namespace, name), object)| {
                (request.namespace.is_empty() || *namespace == request.namespace)
                    && selected
                        .iter()
                        .all(|(path, value)| field_at(object, path) == value)
                    && after
                        .as_ref()
                        .is_none_or(|after| format!("{namespace}/{name}") > *after)
            })
            .collect();
        let page = if limit == 0 {
            rows.len()
        } else {
            let most = self.page.load(Ordering::SeqCst);
            limit.min(most).min(rows.len())
        };
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if page < rows.len() {
            let (_, namespace, name) = &rows[page - 1].0;
            metadata["continue"] = json!(write_token(revision, &format!("{namespace}/{name}")));
            metadata["remainingItemCount"] = json!(rows.len() - page);
        }
        let items: Vec<Value> = rows
            .into_iter()
            .take(page)
            .map(|(_, object)| {
                if request.metadata_only {
                    metadata_of(&object)
                } else {
                    Arc::unwrap_or_clone(object)
                }
            })
            .collect();
        let (api_version, kind) = if request.metadata_only {
            (
                "meta.k8s.io/v1".to_owned(),
                "PartialObjectMetadataList".to_owned(),
            )
        } else {
            (
                request.kind.api_version(),
                format!("{}List", request.kind.kind),
            )
        };
        let mut list = json!({"apiVersion": api_version, "kind": kind});
        list["metadata"] = metadata;
        list["items"] = Value::Array(items);
        Ok(ok(200, list))
    }

    /// The fields that a list selects by, each with its value: only `=`, and only what the kind lets select.
    fn field_selector(request: &Request) -> Result<Vec<(String, String)>, Reply> {
        let text = request.query.get("fieldSelector");
        let parts = text.into_iter().flat_map(|text| text.split(','));
        let mut selected = Vec::new();
        for part in parts.filter(|part| !part.is_empty()) {
            let Some((path, value)) = part.split_once('=') else {
                return Err(failure(400, "BadRequest", "invalid selector"));
            };
            let own = ["metadata.name", "metadata.namespace"].contains(&path);
            if !own && !Self::is_selectable(request.kind, path) {
                let why = format!("field label not supported: {path}");
                return Err(failure(400, "BadRequest", &why));
            }
            selected.push((path.to_owned(), value.to_owned()));
        }
        Ok(selected)
    }

    /// What the API server does first with a DELETE that compares no version: an object without finalizers is to be removed at
    /// once. `None` for one that has some.
    pub fn decide_deletion(
        &self,
        plural: &'static str,
        namespace: &str,
        name: &str,
    ) -> Option<DecidedDeletion> {
        let key = (plural, namespace.to_owned(), name.to_owned());
        let stored = self.state().objects.get(&key).cloned()?;
        let metadata = &stored.object["metadata"];
        metadata
            .get("finalizers")
            .is_none()
            .then(|| DecidedDeletion {
                uid: metadata["uid"].clone(),
                key,
            })
    }

    /// What it does then: whatever is stored by now goes, also with a finalizer that was written meanwhile. Returns whether it had
    /// one.
    pub fn carry_out_deletion(&self, DecidedDeletion { key, uid }: DecidedDeletion) -> bool {
        let mut state = self.state();
        let stored = state.objects.get(&key).cloned();
        let Some(stored) = stored.filter(|stored| stored.object["metadata"]["uid"] == uid) else {
            return false;
        };
        let had_finalizer = stored.object["metadata"].get("finalizers").is_some();
        self.put(&mut state, key, stored, Change::Deleted);
        had_finalizer
    }

    fn create(&self, request: &Request) -> Result<Reply, Reply> {
        let mut object = request.body.clone();
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let named = Request {
            verb: request.verb,
            kind: request.kind,
            namespace: request.namespace.clone(),
            name,
            status: false,
            query: BTreeMap::new(),
            metadata_only: false,
            body: Value::Null,
        };
        let mut state = self.state();
        if state.objects.contains_key(&named.key()) {
            return Err(failure(
                409,
                "AlreadyExists",
                &format!(
                    "{} \"{}\" already exists",
                    qualified(request.kind),
                    named.name
                ),
            ));
        }
        if named.name.is_empty() {
            return Err(failure(422, "Invalid", "name or generateName is required"));
        }
        clean_metadata(&mut object);
        object["metadata"].as_object_mut().unwrap().remove("uid");
        let mut owners = BTreeMap::new();
        if request.kind.custom {
            object.as_object_mut().unwrap().remove("status");
        }
        fields::update(
            &json!({}),
            &own_part(object.clone()),
            &mut owners,
            &request.manager(false),
        );
        let object = self.add(&mut state, &named, object, owners)?;
        Ok(ok(201, object))
    }

    fn add(
        &self,
        state: &mut State,
        request: &Request,
        mut object: Value,
        owners: fields::Owners,
    ) -> Result<Arc<Value>, Reply> {
        let uid = state.new_uid();
        object["apiVersion"] = json!(request.kind.api_version());
        object["kind"] = json!(request.kind.kind);
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(request.name);
        if request.kind.namespaced {
            metadata["namespace"] = json!(request.namespace);
        }
        metadata["uid"] = json!(uid);
        metadata["creationTimestamp"] =
            json!(self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        if request.kind.custom {
            metadata["generation"] = json!(1);
        }
        self.complete(request.kind, &mut object);
        self.validate(request.kind, &object)?;
        Ok(self.put(
            state,
            request.key(),
            Stored {
                object: Arc::new(object),
                owners: Arc::new(owners),
            },
            Change::Added,
        ))
    }

    /// Fills in defaults and drops fields that the schema does not contain.
    fn complete(&self, kind: Kind, object: &mut Value) {
        let Some(schema) = self.schemas().get(kind.plural) else {
            return;
        };
        for part in ["spec", "status"] {
            let schema = &schema["properties"][part];
            if object.get(part).is_none_or(Value::is_null) {
                let Some(default) = schema.get("default") else {
                    object.as_object_mut().unwrap().remove(part);
                    continue;
                };
                object[part] = default.clone();
            }
            shape(&mut object[part], schema);
        }
    }

    /// A server-side apply may name only what the schema declares.
    fn check_declared(&self, config: &Value, request: &Request) -> Result<(), Reply> {
        let Some(schema) = self.schemas().get(request.kind.plural) else {
            return Ok(());
        };
        let mut found = Vec::new();
        for part in ["spec", "status"] {
            let schema = &schema["properties"][part];
            undeclared(&config[part], schema, &format!(".{part}"), &mut found);
        }
        if found.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = found
            .iter()
            .map(|path| format!("{path}: field not declared in schema"))
            .collect();
        let errors = match &lines[..] {
            [line] => line.clone(),
            lines => format!("errors:\n  {}", lines.join("\n  ")),
        };
        let Request {
            namespace,
            name,
            kind,
            ..
        } = request;
        let sentence = format!(
            "failed to create typed patch object ({namespace}/{name}; {}, Kind={}): {errors}",
            kind.api_version(),
            kind.kind
        );
        // The real one gives no reason.
        let mut refusal = failure(500, "", &sentence);
        let status = Arc::make_mut(&mut refusal.body);
        status.as_object_mut().unwrap().remove("reason");
        Err(refusal)
    }

    fn validate(&self, kind: Kind, object: &Value) -> Result<(), Reply> {
        match self.schemas().get(kind.plural) {
            Some(schema) if !is_whole(object, schema) => {
                Err(failure(422, "Invalid", "a required field is missing"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn apply(&self, request: &Request) -> Result<Reply, Reply> {
        let mut config = request.body.clone();
        let manager = request.manager(true);
        if manager.name == "unknown" {
            return Err(failure(
                400,
                "BadRequest",
                "fieldManager is required for apply patch",
            ));
        }
        let uid = config["metadata"]["uid"].as_str().map(str::to_owned);
        let version = config["metadata"]["resourceVersion"]
            .as_str()
            .map(str::to_owned);
        let declared = self.check_declared(&config, request);
        clean_metadata(&mut config);
        let config = applicable(config, request);
        let mut state = self.state();
        let Some(stored) = state.objects.get(&request.key()).cloned() else {
            if request.status {
                return Err(not_found(request));
            }
            declared?;
            if uid.is_some() {
                return Err(conflict(
                    request,
                    "uid mismatch: the provided object specified uid, and no existing object was found",
                ));
            }
            let mut object = json!({"metadata": {}});
            let mut owners = BTreeMap::new();
            let _ = fields::apply(&mut object, &mut owners, &config, &manager, true);
            return Ok(ok(201, self.add(&mut state, request, object, owners)?));
        };
        declared?;
        check_preconditions(request, &stored.object, None, version.as_deref())?;
        let other_uid =
            !request.status && uid.is_some_and(|uid| stored.object["metadata"]["uid"] != uid);
        let mut next = stored.clone();
        if let Err(Conflict(fields)) = fields::apply(
            Arc::make_mut(&mut next.object),
            Arc::make_mut(&mut next.owners),
            &config,
            &manager,
            request.flag("force"),
        ) {
            let (path, other) = &fields[0];
            return Err(conflict(
                request,
                &format!(
                    "Apply failed with {} conflicts: conflict with \"{other}\": {}",
                    fields.len(),
                    path.join(".")
                ),
            ));
        }
        if other_uid {
            return Err(immutable_uid());
        }
        if request.kind.custom {
            self.complete(request.kind, Arc::make_mut(&mut next.object));
        }
        self.finish(&mut state, request, stored, next)
    }

    fn merge(&self, request: &Request) -> Result<Reply, Reply> {
        let mut state = self.state();
        let stored = state
            .objects
            .get(&request.key())
            .cloned()
            .ok_or_else(|| not_found(request))?;
        let mut patched = Value::clone(&stored.object);
        merge_patch(&mut patched, &request.body);
        let uid = request.body["metadata"]["uid"].as_str();
        let version = request.body["metadata"]["resourceVersion"].as_str();
        check_preconditions(request, &stored.object, None, version)?;
        // A patch has no UID precondition: another UID counts as the change of an immutable field.
        if !request.status && uid.is_some_and(|uid| stored.object["metadata"]["uid"] != uid) {
            return Err(immutable_uid());
        }
        self.write(&mut state, request, stored, patched)
    }

    fn replace(&self, request: &Request) -> Result<Reply, Reply> {
        let mut state = self.state();
        let stored = state
            .objects
            .get(&request.key())
            .cloned()
            .ok_or_else(|| not_found(request))?;
        let uid = request.body["metadata"]["uid"].as_str();
        let Some(version) = request.body["metadata"]["resourceVersion"].as_str() else {
            return Err(failure(
                422,
                "Invalid",
                "metadata.resourceVersion: must be specified for an update",
            ));
        };
        check_preconditions(request, &stored.object, uid, Some(version))?;
        self.write(&mut state, request, stored, request.body.clone())
    }

    /// A write other than an apply.
    fn write(
        &self,
        state: &mut State,
        request: &Request,
        stored: Stored,
        mut object: Value,
    ) -> Result<Reply, Reply> {
        clean_metadata(&mut object);
        if request.status {
            let status = object["status"].take();
            object = Value::clone(&stored.object);
            object["status"] = status;
        } else {
            let held = &stored.object["metadata"];
            for name in SERVER_FIELDS {
                match held.get(name) {
                    Some(value) => object["metadata"][name] = value.clone(),
                    None => {
                        object["metadata"].as_object_mut().unwrap().remove(*name);
                    }
                }
            }
            object["metadata"]["name"] = held["name"].clone();
            if request.kind.custom {
                match stored.object.get("status") {
                    Some(status) => object["status"] = status.clone(),
                    None => {
                        object.as_object_mut().unwrap().remove("status");
                    }
                }
            }
        }
        if request.kind.custom {
            self.complete(request.kind, &mut object);
        }
        let mut owners = Arc::clone(&stored.owners);
        let (before, after) = differing(&stored.object, &object);
        fields::update(
            &own_part(before),
            &own_part(after),
            Arc::make_mut(&mut owners),
            &request.manager(false),
        );
        let next = Stored {
            object: Arc::new(object),
            owners,
        };
        self.finish(state, request, stored, next)
    }

    /// Validates, updates the generation, stores, and deletes an object whose last finalizer was removed.
    fn finish(
        &self,
        state: &mut State,
        request: &Request,
        stored: Stored,
        mut next: Stored,
    ) -> Result<Reply, Reply> {
        let object = Arc::make_mut(&mut next.object);
        if request.kind.custom {
            self.validate(request.kind, object)?;
        }
        drop_empty(&mut object["metadata"]);
        let deleting = stored.object["metadata"].get("deletionTimestamp").is_some();
        let finalizers = |object: &Value| {
            object["metadata"]["finalizers"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        let (before, after) = (finalizers(&stored.object), finalizers(&next.object));
        if deleting && after.iter().any(|finalizer| !before.contains(finalizer)) {
            return Err(invalid_field(
                "metadata.finalizers",
                "Forbidden: no new finalizers can be added if the object is being deleted",
            ));
        }
        if request.kind.custom && !same_spec(&stored.object, &next.object) {
            let generation = stored.object["metadata"]["generation"]
                .as_i64()
                .unwrap_or(1);
            Arc::make_mut(&mut next.object)["metadata"]["generation"] = json!(generation + 1);
        }
        if next == stored {
            return Ok(ok(200, stored.object));
        }
        if deleting && after.is_empty() && !before.is_empty() {
            let answer = next.object;
            // The event shows the object as it was last stored, finalizer included, as the real server's does.
            self.put(state, request.key(), stored, Change::Deleted);
            return Ok(ok(200, answer));
        }
        Ok(ok(
            200,
            self.put(state, request.key(), next, Change::Modified),
        ))
    }

    fn delete(&self, request: &Request) -> Result<Reply, Reply> {
        let mut state = self.state();
        let stored = state
            .objects
            .get(&request.key())
            .cloned()
            .ok_or_else(|| not_found(request))?;
        let preconditions = &request.body["preconditions"];
        check_preconditions(
            request,
            &stored.object,
            preconditions["uid"].as_str(),
            preconditions["resourceVersion"].as_str(),
        )?;
        let metadata = &stored.object["metadata"];
        if metadata["finalizers"]
            .as_array()
            .is_some_and(|finalizers| !finalizers.is_empty())
        {
            if metadata.get("deletionTimestamp").is_some() {
                return Ok(ok(200, stored.object));
            }
            let mut next = stored.clone();
            let metadata = &mut Arc::make_mut(&mut next.object)["metadata"];
            metadata["deletionTimestamp"] =
                json!(self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            metadata["deletionGracePeriodSeconds"] = json!(0);
            if let Some(generation) = metadata["generation"].as_i64() {
                metadata["generation"] = json!(generation + 1);
            }
            return Ok(ok(
                200,
                self.put(&mut state, request.key(), next, Change::Modified),
            ));
        }
        let uid = metadata["uid"].clone();
        self.put(&mut state, request.key(), stored, Change::Deleted);
        Ok(ok(
            200,
            json!({
                "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success",
                "details": {"name": request.name, "group": request.kind.group, "kind": request.kind.plural, "uid": uid},
            }),
        ))
    }
}

/// Fields that only the server sets.
const SERVER_FIELDS: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "namespace",
];

/// Removes the metadata that a client cannot write.
fn clean_metadata(object: &mut Value) {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
}

/// The fields that an apply to this resource may own: not the identity, and either status or the rest.
fn applicable(config: Value, request: &Request) -> Value {
    let mut own = own_part(config);
    let fields = own.as_object_mut().unwrap();
    if request.status {
        fields.retain(|name, _| name == "status");
    } else if request.kind.custom {
        fields.remove("status");
    }
    own
}

/// Both objects without their equal parts (spec, status, …): the owners of those do not change.
fn differing(before: &Value, after: &Value) -> (Value, Value) {
    let without = |one: &Value, other: &Value| -> Value {
        let fields = one.as_object().unwrap().iter();
        let differing = fields.filter(|(name, value)| other.get(name) != Some(value));
        differing
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    (without(before, after), without(after, before))
}

/// The object without the fields that have no owner.
fn own_part(mut own: Value) -> Value {
    let fields = own.as_object_mut().unwrap();
    fields.remove("apiVersion");
    fields.remove("kind");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| {
            name != "name" && name != "managedFields" && !SERVER_FIELDS.contains(&name.as_str())
        });
        if metadata.is_empty() {
            fields.remove("metadata");
        }
    }
    own
}

/// Whether two objects have equal specs, so that the generation stays.
fn same_spec(one: &Value, other: &Value) -> bool {
    let has_all = |one: &Value, other: &Value| {
        let mut fields = one.as_object().unwrap().iter();
        fields.all(|(name, value)| {
            name == "metadata" || name == "status" || other.get(name) == Some(value)
        })
    };
    has_all(one, other) && has_all(other, one)
}

fn drop_empty(metadata: &mut Value) {
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|_, value| match value {
            Value::Object(fields) => !fields.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Null => false,
            _ => true,
        });
    }
}

/// RFC 7386.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let fields = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge_patch(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn check_preconditions(
    request: &Request,
    stored: &Value,
    uid: Option<&str>,
    version: Option<&str>,
) -> Result<(), Reply> {
    let metadata = &stored["metadata"];
    // The status subresource copies the stored metadata before the comparison.
    if !request.status && uid.is_some_and(|uid| metadata["uid"] != uid) {
        return Err(conflict(
            request,
            "Precondition failed: UID in precondition does not match the UID in object meta",
        ));
    }
    if version.is_some_and(|version| !version.is_empty() && metadata["resourceVersion"] != version)
    {
        return Err(conflict(
            request,
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    Ok(())
}

/// The text of a field; empty where there is none.
fn field_at<'a>(object: &'a Value, path: &str) -> &'a str {
    let mut names = path.split('.');
    let field = names.try_fold(object, |value, name| value.get(name));
    field.and_then(Value::as_str).unwrap_or_default()
}

pub fn metadata_of(object: &Value) -> Value {
    let mut partial = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata"});
    partial["metadata"] = object["metadata"].clone();
    partial
}

fn write_token(revision: u64, after: &str) -> String {
    base64::engine::general_purpose::URL_SAFE.encode(format!("{revision} {after}"))
}

fn read_token(token: &str) -> Option<(u64, String)> {
    let bytes = base64::engine::general_purpose::URL_SAFE
        .decode(token)
        .ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (revision, after) = text.split_once(' ')?;
    Some((revision.parse().ok()?, after.to_owned()))
}

fn ok(code: u16, body: impl Into<Arc<Value>>) -> Reply {
    let body = body.into();
    Reply { code, body }
}

/// A failure `Status`.
pub fn failure(code: u16, reason: &str, message: &str) -> Reply {
    debug_assert!(StatusCode::from_u16(code).is_ok());
    Reply {
        code,
        body: Arc::new(json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        })),
    }
}

/// A 422 with the field that is its cause.
fn invalid_field(field: &str, why: &str) -> Reply {
    let mut reply = failure(422, "Invalid", &format!("{field}: {why}"));
    Arc::make_mut(&mut reply.body)["details"] = json!({
        "causes": [{"reason": "FieldValueForbidden", "message": why, "field": field}],
    });
    reply
}

fn qualified(kind: Kind) -> String {
    if kind.group.is_empty() {
        kind.plural.to_owned()
    } else {
        format!("{}.{}", kind.plural, kind.group)
    }
}

fn immutable_uid() -> Reply {
    failure(422, "Invalid", "metadata.uid: field is immutable")
}

fn not_found(request: &Request) -> Reply {
    failure(
        404,
        "NotFound",
        &format!("{} \"{}\" not found", qualified(request.kind), request.name),
    )
}

fn conflict(request: &Request, why: &str) -> Reply {
    failure(
        409,
        "Conflict",
        &format!(
            "Operation cannot be fulfilled on {} \"{}\": {why}",
            qualified(request.kind),
            request.name
        ),
    )
}
