"""GoogLeNet (Szegedy and others 2014), without auxiliary classifiers."""
