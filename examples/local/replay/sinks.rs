//! Where a replay writes: lines to files or standard output, and what is for people to the other.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::cli::Words;
use crate::failure::Failure;

/// Lines for other programs, or a page.
pub struct Sink {
    option: &'static str,
    to: Box<dyn Write + Send>,
}

impl Sink {
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.to.write_all(text.as_bytes()).and_then(|()| self.to.write_all(b"\n"));
        written.map_err(|error| Failure::output(self.option, &error))
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(|error| Failure::output(self.option, &error))
    }
}

/// All that a replay writes.
pub struct Sinks {
    pub annotated: Option<Sink>,
    pub sessions: Option<Sink>,
    pub html: Option<Sink>,
    /// For people: standard output, or standard error where lines go to standard output.
    pub report: Sink,
}

const ANNOTATED: &str = "--annotated";
const SESSIONS: &str = "--sessions";
const HTML: &str = "--html";

/// A file that is opened, but not emptied yet.
struct Opened<'a> {
    option: &'static str,
    path: &'a Path,
    file: File,
    data: Metadata,
    is_new: bool,
}

impl Sinks {
    /// Opens the outputs that a command was given.
    pub fn open(words: &Words, input: &Path) -> Result<Self, Failure> {
        let outputs = [(ANNOTATED, "annotated"), (SESSIONS, "sessions"), (HTML, "html")];
        let outputs = outputs.map(|(option, name)| (option, words.path(name)));
        let is_stdout = |path: Option<&Path>| path == Some(Path::new("-"));
        let mut on_stdout = outputs.iter().filter(|(_, path)| is_stdout(*path)).map(|(option, _)| *option);
        let first_on_stdout = on_stdout.next();
        if let (Some(first), Some(second)) = (first_on_stdout, on_stdout.next()) {
            let message = format!("`{first}` and `{second}` are both standard output; give one of them a file");
            return Err(Failure::usage(message));
        }
        let mut opened = Vec::new();
        for (option, path) in outputs {
            if let Some(path) = path.filter(|&path| !is_stdout(Some(path))) {
                opened.push(Opened::new(option, path).inspect_err(|_| undo(&opened))?);
            }
        }
        check(&opened, input).inspect_err(|_| undo(&opened))?;
        let mut files = opened.into_iter();
        let mut sink = |(option, path): (&'static str, Option<&Path>)| -> Result<Option<Sink>, Failure> {
            match path {
                None => Ok(None),
                Some(_) if is_stdout(path) => Ok(Some(Sink { option, to: Box::new(BufWriter::new(io::stdout())) })),
                Some(_) => files.next().map(Opened::emptied).transpose(),
            }
        };
        let [annotated, sessions, html] = outputs;
        let (annotated, sessions, html) = (sink(annotated)?, sink(sessions)?, sink(html)?);
        let to: Box<dyn Write + Send> =
            if first_on_stdout.is_some() { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
        Ok(Self { annotated, sessions, html, report: Sink { option: "the report", to } })
    }
}

impl<'a> Opened<'a> {
    fn new(option: &'static str, path: &'a Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::file(option, path, &error);
        // A link that leads nowhere yet counts as new, too.
        let is_new = !path.exists();
        // Not emptied: it may turn out to be another file of this run.
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let data = file.metadata().map_err(failed)?;
        Ok(Self { option, path, file, data, is_new })
    }

    fn emptied(self) -> Result<Sink, Failure> {
        if self.data.is_file() {
            self.file.set_len(0).map_err(|error| Failure::file(self.option, self.path, &error))?;
        }
        Ok(Sink { option: self.option, to: Box::new(BufWriter::new(self.file)) })
    }
}

/// Takes away the files that opening them made.
fn undo(opened: &[Opened<'_>]) {
    for path in opened.iter().filter(|opened| opened.is_new).filter_map(|opened| opened.path.canonicalize().ok()) {
        // One that cannot be taken away is empty, and in nobody's way.
        let _ = std::fs::remove_file(path);
    }
}

/// Refuses what would overwrite itself: two outputs in one file, or an output in the input.
fn check(opened: &[Opened<'_>], input: &Path) -> Result<(), Failure> {
    for (at, one) in opened.iter().enumerate() {
        let is_twice = |other: &&Opened<'_>| is_same((one.path, &one.data), (other.path, &other.data));
        let Some(other) = opened[at + 1..].iter().find(is_twice) else { continue };
        return Err(Failure::usage(format!(
            "`{}` and `{}` are the same file, `{}`; give each its own",
            one.option,
            other.option,
            other.path.display()
        )));
    }
    let stdout = stdout_data();
    for output in opened {
        let (option, path) = (output.option, output.path.display());
        if std::fs::metadata(input).is_ok_and(|data| is_same((input, &data), (output.path, &output.data))) {
            return Err(Failure::usage(format!("`{option}` is the input itself, `{path}`; give it another path")));
        }
        if stdout.as_ref().is_some_and(|data| is_same((Path::new("-"), data), (output.path, &output.data))) {
            let message =
                format!("`{option}` is the file that standard output goes to, `{path}`; give it another path");
            return Err(Failure::usage(message));
        }
    }
    Ok(())
}

/// Whether two are one regular file. Two names of a device or a pipe are no mistake.
#[cfg(unix)]
fn is_same((_, one): (&Path, &Metadata), (_, other): (&Path, &Metadata)) -> bool {
    use std::os::unix::fs::MetadataExt;
    one.is_file() && other.is_file() && (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same((one, data): (&Path, &Metadata), (other, other_data): (&Path, &Metadata)) -> bool {
    let same = || Some(one.canonicalize().ok()? == other.canonicalize().ok()?);
    data.is_file() && other_data.is_file() && same().unwrap_or(false)
}

/// What standard output is, where that can be found out.
#[cfg(unix)]
fn stdout_data() -> Option<Metadata> {
    use std::os::fd::AsFd;
    let copy = io::stdout().as_fd().try_clone_to_owned().ok()?;
    File::from(copy).metadata().ok()
}

#[cfg(not(unix))]
fn stdout_data() -> Option<Metadata> {
    None
}
