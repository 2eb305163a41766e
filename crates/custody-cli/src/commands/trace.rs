//! stub
#[derive(clap::Args, Debug)]
pub(crate) struct TraceArgs {}
pub(crate) fn run(_: &TraceArgs, _: &crate::ui::Ui) -> Result<(), crate::error::Error> {
    Ok(())
}
