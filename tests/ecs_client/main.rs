//! The cloud's client against real sockets: what it sends, and that no answer, however bad, is taken for what it is not.

mod codes;
mod describe;
mod hostile;
mod redaction;
mod server;
mod wire;
