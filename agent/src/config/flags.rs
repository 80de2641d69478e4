//! The options as flags: the table given to clap, so that help, man page and completions come from it too.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::Error};

use super::options::{Change, OPTIONS, Opt, Takes};

/// What was typed, by key. Only what was given is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub BTreeMap<&'static str, Vec<String>>);

fn arg(opt: &Opt) -> Arg {
    let mut help = opt.help.to_owned();
    if !opt.default.is_empty() {
        help.push_str(&format!(" [default: {}]", opt.default.join(",")));
    }
    if opt.change == Change::Live {
        help.push_str(" [reload]");
    }
    let arg = Arg::new(opt.key).long(opt.key).help(help).help_heading("Settings (each is also a key of the file)");
    match opt.takes {
        Takes::Switch => arg.action(ArgAction::SetTrue),
        Takes::One(name) => arg.value_name(name).action(ArgAction::Set),
        Takes::Many(name) => arg.value_name(name).value_delimiter(',').action(ArgAction::Append),
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        OPTIONS.iter().fold(command, |command, opt| command.arg(arg(opt)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Flags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for opt in OPTIONS {
            let words: Vec<String> = match opt.takes {
                Takes::Switch if matches.get_flag(opt.key) => vec!["true".to_owned()],
                Takes::Switch => vec![],
                _ => matches.get_many::<String>(opt.key).into_iter().flatten().cloned().collect(),
            };
            if !words.is_empty() {
                self.0.insert(opt.key, words);
            }
        }
        Ok(())
    }
}
