//! Performs the one effect that [`super::decide`] chose, and adds its result to the observed state. Each function writes to
//! the cloud or to the API server, never to both.

mod calls;
mod error;
mod hand_over;
mod marks;
mod status;
mod stored;

pub use self::error::{ActError, ApiRequest};
pub(super) use self::status::write_status;
