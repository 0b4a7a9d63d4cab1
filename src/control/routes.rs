//! What the control listener answers.

use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::control::House;
use crate::control::exposition::{self, Format};
use crate::face::http::{graph, status};

type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// What the addresses of one stream begin with.
const STREAM: &str = "/api/v1/streams/";

/// Answers one request. Never fails: every problem is a status.
pub(super) fn answer(house: &House, request: &Request<Incoming>) -> Result<Answer, Infallible> {
    let method = request.method();
    if method != Method::GET && method != Method::HEAD {
        let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    let verbose = request.uri().query().is_some_and(|query| query.contains("verbose"));
    Ok(match request.uri().path() {
        "/metrics" => metrics(house, request),
        "/livez" => respond(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => ready(house, verbose),
        "/api/v1/streams" => streams(house),
        path if path.starts_with(STREAM) => stream(house, &path[STREAM.len()..]),
        _ => respond(
            StatusCode::NOT_FOUND,
            TEXT,
            "not here; there are /metrics /livez /readyz /api/v1/streams \
             /api/v1/streams/NAME /api/v1/streams/NAME/graph\n",
        ),
    })
}

fn metrics(house: &House, request: &Request<Incoming>) -> Answer {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::for_accept(accept.unwrap_or_default());
    match exposition::encode(house, format) {
        Ok(text) => respond(StatusCode::OK, format.content_type(), text),
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "metrics cannot be encoded\n"),
    }
}

/// Liveness never looks at anything else; readiness is lost while starting and draining.
fn ready(house: &House, verbose: bool) -> Answer {
    let started = house.ready.load(Relaxed);
    let draining = house.registry.pulse.load().draining;
    let (status, word) = match (started, draining) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        (true, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (true, false) => (StatusCode::OK, "ok"),
    };
    if !verbose {
        return respond(status, TEXT, format!("{word}\n"));
    }
    let admission = &house.registry.admission;
    let text = format!(
        "{word}\nio_driver: {} ({})\nshards: {}\nstreams: {}\nviewers: {}\nconnections: {}\n",
        house.io_driver,
        house.io_reason,
        house.cells.len(),
        house.registry.directory().iter().count(),
        admission.viewers(),
        admission.connections(),
    );
    respond(status, TEXT, text)
}

fn streams(house: &House) -> Answer {
    let streams = status::streams(&house.registry, house.clock.now());
    match serde_json::to_vec(&streams) {
        Ok(json) => respond(StatusCode::OK, JSON, json),
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "cannot be encoded\n"),
    }
}

/// One stream, or who feeds whom in its swarm.
fn stream(house: &House, rest: &str) -> Answer {
    let (name, wants_graph) =
        rest.strip_suffix("/graph").map_or((rest, false), |name| (name, true));
    let directory = house.registry.directory();
    let Some(stream) = name.parse().ok().and_then(|name| directory.get(&name)) else {
        return respond(StatusCode::NOT_FOUND, TEXT, "no such stream; see /api/v1/streams\n");
    };
    if wants_graph {
        return respond(StatusCode::OK, JSON, graph::drawn(stream));
    }
    let pulse = house.registry.pulse.load();
    match serde_json::to_vec(&status::status(stream, &pulse, house.clock.now())) {
        Ok(json) => respond(StatusCode::OK, JSON, json),
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "cannot be encoded\n"),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
