"""Looking into what is trained on: `show` makes token stores and looks into them, `preview` is a row as plain data
(which the console and `page` draw), `compare` tells two data sets apart. Imports check and data; nothing imports it but
the command line and `report`, which draws previews.
"""
