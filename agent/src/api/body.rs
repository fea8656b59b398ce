//! Reading bodies within bounds: the bytes of all bodies in memory together, their number that waits, and the time
//! that one takes.

use super::{Api, ApiError};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use std::{ops::Deref, time::Duration};
use tokio::sync::SemaphorePermit;

/// Longest time that the bytes of one body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that are counted together.
const UNIT_BYTES: usize = 1024;

/// A body, with its place in memory.
#[derive(Debug)]
pub(super) struct Body<'a> {
    bytes: Bytes,
    _place: SemaphorePermit<'a>,
}

impl Deref for Body<'_> {
    type Target = Bytes;
    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// Places for `bytes_max` bytes.
pub(super) fn places(bytes_max: usize) -> usize {
    bytes_max.div_ceil(UNIT_BYTES)
}

/// Waits for room for as many bytes as the request announces, or for the largest body where it does not, then reads
/// them.
pub(super) async fn read(api: &Api, request: Request) -> Result<Body<'_>, ApiError> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let size_bytes = announced.unwrap_or(api.body_bytes_max);
    if size_bytes > api.body_bytes_max {
        return Err(ApiError::TooLarge { limit_bytes: api.body_bytes_max });
    }
    let place = api.gate.room_for(places(size_bytes)).await?;
    let bytes = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &()))
        .await
        .map_err(|_| ApiError::TooSlow { limit_s: BODY_TIMEOUT.as_secs() })?
        .map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::TooLarge { limit_bytes: api.body_bytes_max }
            } else {
                ApiError::BadRequest(rejection.body_text())
            }
        })?;
    Ok(Body { bytes, _place: place })
}
