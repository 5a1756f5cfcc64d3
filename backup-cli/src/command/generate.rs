//! `completions` and `man`: made from the command line's own definition.

use backup_core::{Error, Result};
use clap::CommandFactory;

use super::args::{Arguments, Shell};
use super::output;

/// Writes a shell's completions to stdout.
///
/// # Errors
/// When stdout can't be written to.
pub fn completions(shell: Shell) -> Result<u8> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "marb-backup", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// Writes the manual page, verbs included, to stdout.
///
/// # Errors
/// When stdout can't be written to.
pub fn man() -> Result<u8> {
    let mut page = Vec::new();
    let unwritable = |e| Error::failed("man", "the page can't be rendered").caused_by(e);
    let mut command = Arguments::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(unwritable)?;
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let man = clap_mangen::Man::new(verb.clone());
        man.render_name_section(&mut page).map_err(unwritable)?;
        man.render_synopsis_section(&mut page).map_err(unwritable)?;
        man.render_description_section(&mut page).map_err(unwritable)?;
        man.render_options_section(&mut page).map_err(unwritable)?;
    }
    output::print(&String::from_utf8_lossy(&page))?;
    Ok(0)
}
