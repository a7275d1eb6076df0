//! The route agent.
