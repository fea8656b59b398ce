//! The page's style sheet; light and dark follow the viewer's setting.

pub(super) const SHEET: &str = include_str!("../../dashboard/status.css");
